"""The command line: one function a verb, which calls the face and prints."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

import lorasweep
from lorasweep.command_line import adapters, compare, data, interface, labels
from lorasweep.command_line.options import MLRUNS, AsJson, Mlruns, SweepName, TrackingUri, sweep_options
from lorasweep.command_line.verbs import App
from lorasweep.options import RECORD, RESUME_OPTIONS
from lorasweep.training.errors import LorasweepError, SettingsError
from lorasweep.tuning.quiet import quiet_environment
from lorasweep.tuning.record.commands import shell_command
from lorasweep.tuning.record.reported import is_disk_full
from lorasweep.tuning.terminal.console import PlainConsole, console, discard_output, next_steps, print_json
from lorasweep.tuning.trials.head import LostClusterError

app = App(
    name="lorasweep",
    help="Finds the LoRA adapter that classifies your texts best.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
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
        bool,
        typer.Option(
            "--extend",
            help="Continue the finished sweep --name with more --trials or --max-minutes, without asking.",
        ),
    ] = False,
    resume_it: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the sweep --name if there is one, here or on its --storage; else start it.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and show the cost; train nothing.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Show the whole plan: rows, tokens, adapted modules, the space's values."
        ),
    ] = False,
) -> None:
    """Search the settings that classify best, and keep the winner.

    Without --data it runs the demonstration: made-up news, MiniLM, 8 trials of 2 epochs, a few minutes on two cores.
    """

    def agreed(question: str) -> bool:
        return sys.stdin.isatty() and typer.confirm(question, abort=True)

    sweep = lorasweep.run(
        options.pop("data"),
        config=config,
        mlruns=mlruns,
        extend=extend or agreed,
        resume=resume_it,
        dry_run=dry_run,
        verbose=1 + verbose,
        **options,
    )
    if dry_run:
        more = "" if verbose else "; --verbose shows more"
        console.print(f"\ndry run: everything above was checked, nothing was trained{more}")
    else:
        show_end(sweep)


@app.command()
@sweep_options(RESUME_OPTIONS)
def resume(
    *,
    options: dict[str, Any],
    name: SweepName = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try all failed trials again, also those of a finished sweep."),
    ] = False,
    confirm: Annotated[
        str | None,
        typer.Option(
            "--confirm",
            help="Retrain the best K trials on S other seeds, such as 3x3, also of a finished sweep.",
            show_default=False,
        ),
    ] = None,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """Continue an interrupted or failed sweep, or confirm the best trials of a finished one.

    Options of resources and of the record replace what the sweep had, from now on; --address local leaves a cluster.
    With --storage it also goes on where its driver's machine is gone: its record lies beside its checkpoints.
    """
    show_end(lorasweep.resume(name, retry_failed=retry_failed, confirm=confirm, mlruns=mlruns, **options))


@app.command()
def publish(name: SweepName = None, tracking_uri: TrackingUri = None, mlruns: Mlruns = MLRUNS) -> None:
    """Copy to MLflow what it lacks of a sweep; safe to repeat."""
    sweep = lorasweep.open(name, mlruns=mlruns)
    with console.status("publishing"):
        sweep.publish(tracking_uri)
    console.print(f"sweep {escape(sweep.name)} ({sweep.state}): MLflow has all of it")


@app.command()
def status(
    name: Annotated[
        str | None, typer.Argument(help="Sweep to show; without a name, all are listed.", show_default=False)
    ] = None,
    all_trials: Annotated[bool, typer.Option("--all", help="Show all trials, not only the best.")] = False,
    as_json: AsJson = False,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """List the sweeps, or show one."""
    from lorasweep.running import records
    from lorasweep.tuning.terminal.result import result_text
    from lorasweep.tuning.terminal.status import listed_entries, status_entries, sweeps_table

    if name is None:
        sweeps = records(mlruns)
        if as_json:
            print_json(list(map(listed_entries, sweeps)))
        elif sweeps:
            console.print(sweeps_table(sweeps))
        else:
            start = shell_command(mlruns, "run")
            console.print(f"no sweeps in {mlruns} yet; start one with: {start}", markup=False)
        return
    sweep = lorasweep.open(name, mlruns=mlruns)
    if as_json:
        print_json(status_entries(sweep.record))
        return
    console.print(result_text(sweep.record, all_trials=all_trials))
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


app.command()(interface.ui)


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="A space to show.", show_default=False)] = None,
    following: Annotated[
        str | None,
        typer.Option(
            "--next",
            help="Print a space for the next search, made from what the trials of this sweep show.",
            metavar="SWEEP",
            show_default=False,
        ),
    ] = None,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """List the shipped search spaces, show one, or make the next one from a sweep."""
    from rich.table import Table

    from lorasweep.search_spaces.space import load_space, shipped_spaces, space_file
    from lorasweep.search_spaces.starts import starts_text

    if following is not None:
        if name is not None:
            raise SettingsError(f"--next {following}: prints a space of its own; leave out {name!r}")
        from lorasweep.tuning.search.next_space import next_space_after

        made = next_space_after(lorasweep.open(following, mlruns=mlruns).record)
        console.print(made.to_yaml(), markup=False, end="")
        return
    if name is not None:
        load_space(name)
        # As it is, comments included: they say why, to whoever changes a copy.
        console.print(space_file(name).read_text(encoding="utf-8"), markup=False, end="")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("space", no_wrap=True)
    table.add_column("when to use it", overflow="fold")
    for space in shipped_spaces():
        starts = f"[dim]starts: {escape(starts_text(space.start_points()))}[/dim]" if space.starts else ""
        table.add_row(space.name, "\n".join(filter(None, [escape(space.about), starts])))
    console.print(table)
    next_steps(
        console,
        [
            ("lorasweep spaces lora_cpu > mine.yaml", "take a copy of one and change it"),
            ("lorasweep run --space mine.yaml", "search it"),
        ],
    )


app.command()(labels.check_labels)
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
    folder = sweep.record.folder
    if sweep.state != "finished":
        return [
            (folder.command("resume"), "go on where it stopped"),
            (folder.command("status"), "what there is so far"),
        ]
    again = []
    if sweep.result is not None and sweep.result.missing:
        again = [(folder.command("resume"), "try again what failed after the trials")]
    elif any(trial.state == "failed" for trial in sweep.record.trials):
        retry = folder.command("resume", "--retry-failed")
        again = [(retry, "try the failed trials again")]
    if sweep.result is not None and sweep.result.near and not sweep.result.confirmed:
        from lorasweep.tuning.sweep.extend import kept_best  # imports numpy, which `--help` does without

        kept = kept_best(sweep.record.ranked())[:3]
        if len(kept) > 1:
            told = "the best are within noise of each other: train them on other seeds"
            again.append((folder.command("resume", "--confirm", f"{len(kept)}x3"), told))
    return [
        *again,
        (shell_command(folder.mlruns, "ui"), "browse the trials"),
        *next_search(sweep),
        (folder.command("export", "--out", "best-adapter"), "take the winner along"),
        ('lorasweep predict --adapter best-adapter "Markets rally as inflation cools"', ""),
    ]


def next_search(sweep: lorasweep.Sweep) -> list[tuple[str, str]]:
    """How to get a space for the next search; nothing after a search of a Python function."""
    folder = sweep.record.folder
    if not (folder.path / "space.yaml").is_file():
        return []
    command = shell_command(folder.mlruns, "spaces", "--next", sweep.name)
    return [(f"{command} > next.yaml", "make a space for the next search from what this one shows")]


def main() -> None:
    """Entry of the command `lorasweep`: what a user can mend ends in one line and exit code 2."""
    quiet_environment()
    # For typer's own pages; our console replaces what an encoding lacks by itself.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        app()
    except LorasweepError as error:
        _refuse(str(error), at_once=isinstance(error, LostClusterError))
    except OSError as error:
        # As a rule of the output itself, as with `> file` on a full disk.
        if not is_disk_full(error):
            raise
        discard_output()
        _refuse("no space left where the output or a file is written; free some, then run it again")


def _refuse(message: str, at_once: bool = False) -> NoReturn:
    PlainConsole(stderr=True, highlight=False).print(
        f"[red]lorasweep:[/red] {escape(message)}", soft_wrap=True
    )
    if at_once:
        sys.stdout.flush()
        os._exit(2)
    sys.exit(2)
