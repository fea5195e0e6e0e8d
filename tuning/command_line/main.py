"""The command line: one function a verb; those of exported adapters stand in `cli_adapters`,
of data sets in `cli_data`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lorasweep.training.errors import LorasweepError, SettingsError
from lorasweep.tuning.command_line import adapters as cli_adapters
from lorasweep.tuning.command_line import compare as cli_compare
from lorasweep.tuning.command_line import data as cli_data
from lorasweep.tuning.command_line import options as o
from lorasweep.tuning.command_line.drive import drive, sweep_steps
from lorasweep.tuning.command_line.options import MLRUNS, AsJson, SweepName
from lorasweep.tuning.quiet import quiet_environment
from lorasweep.tuning.terminal.console import PlainConsole, console, print_json
from lorasweep.tuning.tracking.store import hide_passwords, tracking_store

if TYPE_CHECKING:
    from lorasweep.tuning.record.folder import SweepFolder
    from lorasweep.tuning.sweep.plan import SweepPlan

app = typer.Typer(
    name="lorasweep",
    help="Finds the LoRA adapter that classifies your texts best.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
DRY = "\ndry run: everything above was checked, nothing was trained"


@app.command()
def run(
    data: o.Data = None,
    validation: o.Validation = None,
    test: o.Test = None,
    text: o.Text = None,
    label: o.Label = None,
    columns: o.Columns = None,
    split_column: o.SplitColumn = None,
    split_by: o.SplitBy = None,
    date: o.Date = None,
    merge_labels: o.MergeLabels = None,
    max_train_rows: o.MaxTrainRows = None,
    max_validation_rows: o.MaxValidationRows = None,
    keep_small_classes: o.KeepSmall = None,
    base_model: o.Base = None,
    epochs: o.Epochs = None,
    evaluations_per_epoch: o.Evaluations = None,
    precision: o.PrecisionOption = None,
    max_length: o.MaxLength = None,
    micro_batch_size: o.MicroBatch = None,
    class_weights: o.ClassWeights = None,
    metric: o.MetricOption = None,
    seed: o.Seed = None,
    space: o.Space = None,
    trials: o.Trials = None,
    sampler: o.Sampler = None,
    asha: o.Asha = None,
    reduction_factor: o.Reduction = None,
    grace_rungs: o.Grace = None,
    max_failures: o.MaxFailures = None,
    warm_start: o.WarmStart = None,
    choose: o.Choose = None,
    within: o.Within = None,
    confirm: o.Confirm = None,
    baselines: o.Baselines = None,
    compare_untuned: o.Untuned = None,
    gpus_per_trial: o.Gpus = None,
    cpus_per_trial: o.Cpus = None,
    concurrency: o.Concurrency = None,
    address: o.Address = None,
    storage: o.Storage = None,
    name: o.Name = None,
    keep: o.Keep = None,
    tracking_uri: o.TrackingUri = None,
    register: o.Register = None,
    no_register: o.Registering = None,
    system_metrics: o.SystemMetrics = None,
    config: o.Config = None,
    mlruns: o.Mlruns = MLRUNS,
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
    given = {key: value for key, value in locals().items() if key in o.PLACES}
    if name is not None and trials is not None:
        from lorasweep.tuning.record.folder import SweepFolder

        folder = SweepFolder(mlruns, name)
        if folder.exists():
            _extend(folder, given, config, sure=extend, dry_run=dry_run)
            return
    from lorasweep.tuning.command_line.to_config import sweep_config

    settings = sweep_config(given, config, mlruns)
    from lorasweep.tuning.sweep.start import prepare

    with console.status("checking data, model and search space"):
        prepared = prepare(settings, mlruns)
    _show_plan(prepared.plan, prepared.notes)
    if dry_run:
        console.print(DRY)
        return
    drive(prepared)


def _show_plan(plan: SweepPlan, notes: list[str]) -> None:
    from lorasweep.tuning.terminal.plan import plan_text

    console.print(f"[bold]{escape(plan.config.name)}[/bold]")
    console.print(plan_text(plan))
    for note in notes:
        console.print(f"[yellow]note[/yellow]    {escape(note)}")


def _extend(
    folder: SweepFolder, given: dict[str, Any], config_file: Path | None, *, sure: bool, dry_run: bool
) -> None:
    """Add trials to a sweep that exists, once the user agrees."""
    from lorasweep.tuning.command_line.to_config import asked_for
    from lorasweep.tuning.record.sweep import SweepRecord
    from lorasweep.tuning.sweep.extend import extended_config
    from lorasweep.tuning.sweep.start import extend

    config = extended_config(SweepRecord(folder), asked_for(given, config_file))
    before = folder.config().search.trials
    question = f"sweep {folder.name} has {before} trials; add {config.search.trials - before}?"
    if not sure and not dry_run:
        if not sys.stdin.isatty():
            raise SettingsError(f"{question} Say so with --extend, or choose another --name")
        typer.confirm(question, abort=True)
    with console.status("reading the sweep"):
        prepared = extend(folder, config)
    _show_plan(prepared.plan, prepared.notes)
    if dry_run:
        console.print(DRY)
        return
    drive(prepared)


@app.command()
def resume(name: SweepName = None, mlruns: o.Mlruns = MLRUNS) -> None:
    """Go on with a sweep that was interrupted."""
    from lorasweep.tuning.record.folder import find_sweep
    from lorasweep.tuning.sweep import start

    folder = find_sweep(mlruns, name)
    with console.status("reading the sweep"):
        prepared = start.resume(folder)
    if prepared is None:
        publish(folder.name, mlruns=mlruns)
    else:
        drive(prepared)


@app.command()
def publish(name: SweepName = None, tracking_uri: o.TrackingUri = None, mlruns: o.Mlruns = MLRUNS) -> None:
    """Fill MLflow from a sweep's folder: what it lacks, as often as you like."""
    from lorasweep.tuning.record.folder import find_sweep
    from lorasweep.tuning.sweep import start

    folder = find_sweep(mlruns, name)
    with console.status("publishing") as waiting:
        start.publish(folder, tracking_uri, waiting.update)
    console.print(f"sweep {escape(folder.name)} ({folder.state()}): MLflow has all of it")


@app.command()
def status(name: SweepName = None, as_json: AsJson = False, mlruns: o.Mlruns = MLRUNS) -> None:
    """List the sweeps, or show one."""
    from lorasweep.tuning.record.folder import list_sweeps
    from lorasweep.tuning.record.sweep import SweepRecord, read_sweep
    from lorasweep.tuning.terminal.result import result_text
    from lorasweep.tuning.terminal.status import status_entries, sweeps_table

    if name is None:
        sweeps = list_sweeps(mlruns)
        if as_json:
            print_json([{"name": sweep.name, "state": sweep.state()} for sweep in sweeps])
        elif sweeps:
            console.print(sweeps_table([SweepRecord(sweep) for sweep in sweeps]))
        else:
            console.print(f"no sweeps in {escape(str(mlruns))} yet; start one with: lorasweep run")
        return
    sweep = read_sweep(mlruns, name)
    if as_json:
        print_json(status_entries(sweep))
        return
    from lorasweep.tuning.terminal.console import next_steps

    result = sweep.outcome()
    console.print(result_text(sweep, result))
    if result.state != "running":
        next_steps(console, sweep_steps(sweep.folder, result))


@app.command()
def report(
    name: SweepName = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write [NAME.html].", show_default=False)
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive",
            help="Write NAME-interactive.html, too: plots to point at, zoom and filter. It is 5 MB, as the "
            "code that draws them is in it, so that it needs no network.",
        ),
    ] = False,
    mlruns: o.Mlruns = MLRUNS,
) -> None:
    """Write one HTML page on a sweep: plots, all trials, the winner and its mistakes."""
    from lorasweep.tuning.record.folder import find_sweep
    from lorasweep.tuning.report.page import write_report

    folder = find_sweep(mlruns, name)
    page = out or Path(f"{folder.name}.html")
    with console.status("drawing"):
        pages = write_report(folder, page, interactive)
    for path in pages:
        console.print(f"{escape(str(path))}: the report of sweep {escape(folder.name)}; open it in a browser")


@app.command()
def ui(
    mlruns: o.Mlruns = MLRUNS,
    tracking_uri: o.TrackingUri = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 5000,
) -> None:
    """Open the MLflow UI on the sweeps' record."""
    from lorasweep.tuning.tracking.tracking import EXPERIMENT, prepare_store, ui_command

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


for verb in (
    cli_compare.compare,
    cli_adapters.export,
    cli_adapters.predict,
    cli_adapters.evaluate,
    cli_adapters.register,
):
    app.command()(verb)
app.add_typer(cli_data.app)


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
