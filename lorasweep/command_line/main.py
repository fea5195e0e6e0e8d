"""The command line: one function a verb, which calls the face and prints."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

import lorasweep
from lorasweep.command_line import adapters, compare, data
from lorasweep.command_line.options import MLRUNS, AsJson, Mlruns, SweepName, TrackingUri, sweep_options
from lorasweep.options import RECORD
from lorasweep.training.errors import LorasweepError
from lorasweep.tuning.quiet import quiet_environment
from lorasweep.tuning.terminal.console import PlainConsole, console, next_steps, print_json
from lorasweep.tuning.tracking.store import hide_passwords, tracking_store

app = typer.Typer(
    name="lorasweep",
    help="Finds the LoRA adapter that classifies your texts best.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"lorasweep {lorasweep.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _lorasweep(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
@sweep_options()
def run(
    *,
    options: dict[str, Any],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="YAML file of settings; options override it.",
            rich_help_panel=RECORD,
            show_default=False,
        ),
    ] = None,
    mlruns: Mlruns = MLRUNS,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add trials to the sweep of this --name without asking.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and show the cost; train nothing.")
    ] = False,
) -> None:
    """Search the settings that classify best, and keep the winner.

    Without --data it runs the demonstration: made-up news, MiniLM, a few minutes on two cores.
    """

    def agreed(question: str) -> bool:
        return sys.stdin.isatty() and typer.confirm(question, abort=True)

    sweep = lorasweep.run(
        options.pop("data"), config=config, mlruns=mlruns, extend=extend or agreed, dry_run=dry_run, **options
    )
    if dry_run:
        console.print("\ndry run: everything above was checked, nothing was trained")
    else:
        show_end(sweep)


@app.command()
def resume(
    name: SweepName = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try all failed trials again, also those of a finished sweep."),
    ] = False,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """Go on with a sweep that was interrupted or failed."""
    show_end(lorasweep.resume(name, retry_failed=retry_failed, mlruns=mlruns))


@app.command()
def publish(name: SweepName = None, tracking_uri: TrackingUri = None, mlruns: Mlruns = MLRUNS) -> None:
    """Fill MLflow from a sweep's folder with whatever it lacks, as often as you like."""
    sweep = lorasweep.open(name, mlruns=mlruns)
    with console.status("publishing"):
        sweep.publish(tracking_uri)
    console.print(f"sweep {escape(sweep.name)} ({sweep.state}): MLflow has all of it")


@app.command()
def status(name: SweepName = None, as_json: AsJson = False, mlruns: Mlruns = MLRUNS) -> None:
    """List the sweeps, or show one."""
    from lorasweep.running import records
    from lorasweep.tuning.terminal.status import status_entries, sweeps_table

    if name is None:
        sweeps = records(mlruns)
        if as_json:
            print_json([{"name": sweep.name, "state": sweep.state} for sweep in sweeps])
        elif sweeps:
            console.print(sweeps_table(sweeps))
        else:
            console.print(f"no sweeps in {escape(str(mlruns))} yet; start one with: lorasweep run")
        return
    sweep = lorasweep.open(name, mlruns=mlruns)
    if as_json:
        print_json(status_entries(sweep.record))
        return
    console.print(sweep)
    if sweep.state != "running":
        next_steps(console, sweep_steps(sweep))


@app.command()
def report(
    name: SweepName = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write [NAME.html].", show_default=False)
    ] = None,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """Write one HTML page on a sweep: plots, all trials, the winner and its mistakes."""
    sweep = lorasweep.open(name, mlruns=mlruns)
    with console.status("drawing"):
        page = sweep.report(out)
    console.print(f"{escape(str(page))}: the report of sweep {escape(sweep.name)}; open it in a browser")


@app.command()
def ui(
    mlruns: Mlruns = MLRUNS,
    tracking_uri: TrackingUri = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 5000,
) -> None:
    """Open the MLflow UI on the sweeps' record."""
    from lorasweep.tuning.tracking.runs import EXPERIMENT
    from lorasweep.tuning.tracking.store import prepare_store, ui_command

    def show_views(address: str) -> None:
        from lorasweep.tuning.tracking.views import view_links

        for view, link in view_links(uri, EXPERIMENT, address):
            # Not broken into lines, so that a terminal lets one click on it.
            console.print(f"  {escape(view):<19} [cyan]{escape(link)}[/cyan]", soft_wrap=True)

    uri = tracking_store(tracking_uri, mlruns)
    if uri.startswith(("http://", "https://")):
        address = hide_passwords(uri)
        console.print(f"the record is on a server already: {escape(address)}", soft_wrap=True)
        # Without them the address is still right.
        with suppress(LorasweepError):
            show_views(address)
        return
    if host not in ("127.0.0.1", "localhost", "::1"):
        console.print(
            f"[yellow]listening on {escape(host)}: whoever reaches it can read and change the record[/yellow]"
        )
    prepare_store(uri, mlruns)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    console.print(f"MLflow UI: [cyan]{escape(address)}[/cyan]   (Ctrl-C ends it)")
    show_views(address)
    raise typer.Exit(subprocess.call(ui_command(uri, mlruns, host, port)))


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="A space to show.", show_default=False)] = None,
) -> None:
    """List the shipped search spaces, or show one."""
    from rich.table import Table

    from lorasweep.search_spaces.space import SearchSpace, load_space, shipped_spaces

    if name is not None:
        space = load_space(name)
        console.print(space.to_yaml() if isinstance(space, SearchSpace) else str(space), markup=False, end="")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("space", no_wrap=True)
    table.add_column("when to use it", overflow="fold")
    for space in shipped_spaces():
        table.add_row(space.name, escape(space.about))
    console.print(table)
    console.print("\nlorasweep spaces NAME shows one; save it, change it, and pass it: --space mine.yaml")


for verb in (compare.compare, adapters.export, adapters.predict, adapters.evaluate, adapters.register):
    app.command()(verb)
app.add_typer(data.app)


def show_end(sweep: lorasweep.Sweep) -> None:
    """Say how a sweep ended and what can be done next."""
    console.print(sweep)
    next_steps(console, sweep_steps(sweep))
    if sweep.state == "interrupted":
        raise typer.Exit(130)


def sweep_steps(sweep: lorasweep.Sweep) -> list[tuple[str, str]]:
    """What can be done with a sweep that does not run."""
    if sweep.state != "finished":
        return [
            (f"lorasweep resume {sweep.name}", "go on where it stopped"),
            (f"lorasweep status {sweep.name}", "what there is so far"),
        ]
    again = []
    if sweep.result is not None and sweep.result.missing:
        again = [(f"lorasweep resume {sweep.name}", "try again what failed after the trials")]
    elif any(trial.state == "failed" for trial in sweep.record.trials):
        again = [(f"lorasweep resume {sweep.name} --retry-failed", "try the failed trials again")]
    return [
        *again,
        ("lorasweep ui", "browse the trials"),
        (f"lorasweep export {sweep.name} --out best-adapter", "take the winner along"),
        ('lorasweep predict --adapter best-adapter "Markets rally as inflation cools"', ""),
    ]


def main() -> None:
    """Entry of the command `lorasweep`: what a user can mend ends in one line and exit code 2."""
    quiet_environment()
    try:
        app()
    except LorasweepError as error:
        PlainConsole(stderr=True, highlight=False).print(
            f"[red]lorasweep:[/red] {escape(str(error))}", soft_wrap=True
        )
        sys.exit(2)
    except BrokenPipeError:
        # Somebody closed the pipe we print into, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
