"""The verb `lorasweep compare`: full fine-tuning, untuned LoRA and a sweep's winner, side by side."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.command_line import options as o
from lorasweep.tuning.command_line.drive import drive
from lorasweep.tuning.command_line.options import MLRUNS
from lorasweep.tuning.terminal.console import console
from lorasweep.tuning.trials.ray_access import guard_local_ray

if TYPE_CHECKING:
    from lorasweep.tuning.compare.record import ComparedRow, CompareSettings, ComparisonFolder, RowPlan
    from lorasweep.tuning.record.config import SweepConfig
    from lorasweep.tuning.record.folder import SweepFolder

# Rows that the search is given where there are more of them: settings are found on a part, rows trained on all.
SEARCH_ROWS = 4000
DEFAULTS: dict[str, Any] = {
    "training": {"epochs": 2},
    "search": {"trials": 8},
    # The comparison has rows of its own for these.
    "compare_untuned": False,
}
COMPARE, BASELINES = "Comparison", "Baselines"


def _option(*names: str, group: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


def compare(
    sweep: Annotated[
        str | None,
        _option(
            "--sweep", group=COMPARE, help="A finished sweep; without it one is run.", show_default=False
        ),
    ] = None,
    all_rows: Annotated[
        bool, _option("--all-rows", group=COMPARE, help="Train the rows on all that --sweep's data file has.")
    ] = False,
    search_rows: Annotated[
        int, _option("--search-rows", group=COMPARE, help="Training rows of the sweep that is run.")
    ] = SEARCH_ROWS,
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
    max_length: o.MaxLength = None,
    micro_batch_size: o.MicroBatch = None,
    class_weights: o.ClassWeights = None,
    metric: o.MetricOption = None,
    seed: o.Seed = None,
    space: o.Space = None,
    trials: o.Trials = None,
    batch_size: Annotated[
        int, _option("--batch-size", group=BASELINES, help="Of the rows that are not tuned.")
    ] = 32,
    full_rate: Annotated[
        float, _option("--full-rate", group=BASELINES, help="Learning rate of full fine-tuning.")
    ] = 1e-4,
    lora_rate: Annotated[
        float, _option("--lora-rate", group=BASELINES, help="Learning rate of untuned LoRA.")
    ] = 2e-5,
    tune_baseline: Annotated[
        bool,
        _option("--tune-baseline", group=BASELINES, help="Search both rates too, in sweeps of their own."),
    ] = False,
    baseline_trials: Annotated[
        int, _option("--baseline-trials", group=BASELINES, help="Trials of each of these sweeps.")
    ] = 6,
    name: Annotated[
        str | None, _option("--name", group=o.RECORD, help="The comparison's name.", show_default=False)
    ] = None,
    tracking_uri: o.TrackingUri = None,
    mlruns: o.Mlruns = MLRUNS,
) -> None:
    """Train full fine-tuning, untuned LoRA and a sweep's winner side by side, and measure all that they cost.

    Interrupted, the same command goes on: what is done is not done again.
    """
    given = {key: value for key, value in locals().items() if key in o.PLACES and key != "name"}
    from lorasweep.tuning.command_line.to_config import stem, validation_part
    from lorasweep.tuning.quiet import quiet_libraries

    quiet_libraries()
    name = name or f"{sweep or stem(data)}-compared"
    config = _sweep_config(given, sweep, name, search_rows, mlruns)
    guard_local_ray(config.resources.address)
    from lorasweep.tuning.compare import run as runner
    from lorasweep.tuning.compare.record import CompareSettings, ComparisonFolder
    from lorasweep.tuning.record.sweep import SweepRecord

    own = sweep is not None and not all_rows and max_train_rows is None
    rows_of = config.data.model_copy(update={"max_train_rows": max_train_rows, "max_validation_rows": None})
    if max_train_rows is not None:
        rows_of = rows_of.model_copy(update={"max_validation_rows": validation_part(max_train_rows)})
    settings = CompareSettings(
        name=name,
        sweep=config.name,
        data=None if own else rows_of,
        base_model=config.base_model,
        training=config.training.model_copy(update={"epochs": epochs or config.training.epochs}),
        batch_size=batch_size,
        full_rate=full_rate,
        lora_rate=lora_rate,
        tune_baseline=tune_baseline,
        baseline_trials=baseline_trials,
    )
    folder = ComparisonFolder(mlruns, settings.name)
    folder.open(settings)
    with folder.lock():
        searched = _found(sweep, mlruns) if sweep else runner.find_or_run(config, mlruns, _drive)
        _, winner = SweepRecord(searched).won("compare", finished=True)
        full, lora = _tuned_rates(config, settings, mlruns) if tune_baseline else (None, None)
        from lorasweep.tuning.compare.rows import row_plans

        with console.status("reading and encoding") as waiting:
            prepared = runner.prepare(settings, folder, searched)
            runner.check_same_test(prepared, searched)
            untuned = runner.untuned_for(winner.hyperparameters)
            classes = len(prepared.dataset.original_names)
            plans = row_plans(settings, winner.hyperparameters, untuned, full, lora, classes)

            def tell(plan: RowPlan, what: str) -> None:
                number = 1 + [entry.id for entry in plans].index(plan.id)
                line = f"row {number} of {len(plans)}, {plan.name} ({plan.precision}): {what}"
                # A spinner is for terminals; a log gets a line.
                if console.is_terminal:
                    waiting.update(line)
                else:
                    console.print(line)

            rows = runner.run_rows(plans, settings, folder, prepared, tell)
        _finish(folder, settings, rows, tracking_uri or config.tracking_uri, mlruns)
    if any(row.error for row in rows):
        raise typer.Exit(2)


def _sweep_config(
    given: dict[str, Any], sweep: str | None, name: str, search_rows: int, mlruns: Path
) -> SweepConfig:
    """The configuration of the sweep that is compared: the one that is there, or the one to be run."""
    if sweep is not None:
        fixed = [
            key
            for key, value in given.items()
            if value not in (None, []) and key not in ("max_train_rows", "epochs", "tracking_uri")
        ]
        if fixed:
            flags = ", ".join(f"--{key.replace('_', '-')}" for key in fixed)
            raise SettingsError(f"--sweep {sweep} with {flags}: these are the sweep's own; leave them out")
        return _found(sweep, mlruns).config()
    from lorasweep.tuning.command_line.to_config import asked_for, sweep_config_of
    from lorasweep.tuning.record.config import merge

    rows = given.get("max_train_rows")
    asked = merge(
        DEFAULTS, asked_for(given | {"max_train_rows": min(search_rows, rows or search_rows)}, None)
    )
    return sweep_config_of(asked | {"name": f"{name}-sweep"}, mlruns)


def _found(sweep: str, mlruns: Path) -> SweepFolder:
    from lorasweep.tuning.record.folder import find_sweep

    return find_sweep(mlruns, sweep)


def _tuned_rates(config: SweepConfig, settings: CompareSettings, mlruns: Path) -> tuple[float, float]:
    """Learning rates of full fine-tuning and of plain LoRA, each found by a sweep of its own."""
    from lorasweep.tuning.compare import run as runner
    from lorasweep.tuning.record.sweep import SweepRecord

    rates = []
    for space, kind in ((runner.FULL_SPACE, "full"), (runner.LORA_SPACE, "lora")):
        wanted = runner.baseline_config(config, settings, space, kind)
        searched = runner.find_or_run(wanted, mlruns, _drive)
        _, winner = SweepRecord(searched).won("compare", finished=True)
        rates.append(winner.hyperparameters.learning_rate)
    return rates[0], rates[1]


def _drive(folder: SweepFolder, config: SweepConfig) -> None:
    """Run a sweep to its end, or go on with it."""
    from lorasweep.tuning.sweep.start import prepare, resume
    from lorasweep.tuning.terminal.plan import plan_text

    console.print(f"[bold]{escape(config.name)}[/bold]: the sweep that is compared")
    with console.status("checking data, model and search space"):
        prepared = resume(folder) if folder.exists() else prepare(config, folder.mlruns)
    if prepared is None:
        return
    if prepared.new:
        console.print(plan_text(prepared.plan))
    drive(prepared, steps=False)
    console.print()


def _finish(
    folder: ComparisonFolder,
    settings: CompareSettings,
    rows: list[ComparedRow],
    tracking_uri: str | None,
    mlruns: Path,
) -> None:
    """Tables, picture, MLflow, and where all of it lies."""
    from lorasweep.tuning.compare.mlflow import publish
    from lorasweep.tuning.compare.plot import comparison_plot
    from lorasweep.tuning.compare.text import comparison_markdown, comparison_text, facts
    from lorasweep.tuning.terminal.console import next_steps
    from lorasweep.tuning.tracking.store import StoreAwayError, prepare_store, tracking_store

    entries = {
        "settings": settings.model_dump(mode="json"),
        "rows": [row.model_dump(mode="json") for row in rows],
    }
    files: dict[str, bytes] = {
        "comparison.md": comparison_markdown(rows, settings, facts(rows, settings)).encode(),
        "comparison.json": json.dumps(entries, indent=1, ensure_ascii=False).encode(),
    }
    picture = comparison_plot(rows)
    if picture is not None:
        files["comparison.png"] = picture
    folder.write(files)
    console.print(comparison_text(rows))
    uri = tracking_store(tracking_uri, mlruns)
    with console.status("writing to MLflow"):
        with suppress(StoreAwayError):
            prepare_store(uri, mlruns)
        publish(folder, settings, rows, files, uri)
    console.print(f"tables, JSON and picture: {escape(str(folder.path))}/comparison.md, .json, .png")
    next_steps(
        console,
        [
            ("lorasweep ui", "browse the rows"),
            (f"lorasweep export {settings.sweep} --out best-adapter", "take the tuned one along"),
        ],
    )
