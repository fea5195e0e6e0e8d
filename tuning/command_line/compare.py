"""The verb `lorasweep compare`: full fine-tuning, untuned LoRA and a sweep's winner, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lorasweep.tuning.command_line import options as o
from lorasweep.tuning.command_line.drive import drive, open_store
from lorasweep.tuning.command_line.options import MLRUNS
from lorasweep.tuning.compare.record import SEARCH_ROWS
from lorasweep.tuning.terminal.console import console

if TYPE_CHECKING:
    from lorasweep.tuning.record.config import SweepConfig
    from lorasweep.tuning.record.folder import SweepFolder

COMPARE, BASELINES = "Comparison", "Baselines"


def _option(*names: str, group: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


def compare(
    sweep: Annotated[
        str | None,
        _option(
            "--sweep",
            group=COMPARE,
            help="Compare this finished sweep; without it, run one.",
            show_default=False,
        ),
    ] = None,
    all_rows: Annotated[
        bool, _option("--all-rows", group=COMPARE, help="Train on the whole data file of --sweep.")
    ] = False,
    search_rows: Annotated[
        int, _option("--search-rows", group=COMPARE, help="Training rows of the sweep to run.")
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
        int, _option("--batch-size", group=BASELINES, help="Batch size of untuned rows.")
    ] = 32,
    full_rate: Annotated[
        float, _option("--full-rate", group=BASELINES, help="Learning rate of full fine-tuning.")
    ] = 1e-4,
    lora_rate: Annotated[
        float, _option("--lora-rate", group=BASELINES, help="Learning rate of untuned LoRA.")
    ] = 2e-5,
    tune_baseline: Annotated[
        bool,
        _option("--tune-baseline", group=BASELINES, help="Tune both learning rates, too, each in a sweep."),
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
    """Train full fine-tuning, untuned LoRA and a sweep's winner on the same data, and measure what each costs.

    Repeat an interrupted command to continue it: what is finished is not run again.
    """
    values = locals()
    from lorasweep.tuning.command_line.to_config import stem, sweep_config
    from lorasweep.tuning.compare.compare import compare_sweep
    from lorasweep.tuning.compare.text import comparison_text
    from lorasweep.tuning.quiet import quiet_libraries
    from lorasweep.tuning.terminal.console import next_steps

    quiet_libraries()
    waiting = console.status("")

    def report(line: str) -> None:
        # A spinner is for terminals; a log gets a line.
        if console.is_terminal:
            waiting.update(line)
            waiting.start()
        else:
            console.print(line)

    def run_sweep(config: SweepConfig) -> SweepFolder:
        waiting.stop()
        return _run_sweep(config, mlruns)

    try:
        comparison = compare_sweep(
            {key: values[key] for key in o.PLACES if key in values and key != "name"},
            name=name or f"{sweep or stem(data)}-compared",
            mlruns=mlruns,
            configure=lambda options: sweep_config(options, None, mlruns),
            run_sweep=run_sweep,
            report=report,
            sweep=sweep,
            all_rows=all_rows,
            search_rows=search_rows,
            batch_size=batch_size,
            full_rate=full_rate,
            lora_rate=lora_rate,
            tune_baseline=tune_baseline,
            baseline_trials=baseline_trials,
        )
    finally:
        waiting.stop()
    console.print(comparison_text(comparison.records))
    console.print(f"files: {escape(', '.join(str(path) for path in comparison.files))}")
    next_steps(
        console,
        [
            ("lorasweep ui", "browse the rows"),
            (f"lorasweep export {comparison.settings.sweep} --out best-adapter", "export the tuned adapter"),
        ],
    )
    if comparison.failed:
        raise typer.Exit(2)


def _run_sweep(config: SweepConfig, mlruns: Path) -> SweepFolder:
    """Run a sweep to its end, or continue it."""
    from lorasweep.tuning.record.folder import SweepFolder
    from lorasweep.tuning.sweep.plan import plan_sweep
    from lorasweep.tuning.sweep.start import create_folder, resume_plan
    from lorasweep.tuning.terminal.plan import plan_text

    folder = SweepFolder(mlruns, config.name)
    console.print(f"[bold]{escape(config.name)}[/bold]: a sweep for the comparison")
    with console.status("checking data, model and search space"):
        plan = resume_plan(folder) if folder.exists() else plan_sweep(config)
    if not folder.exists():
        console.print(plan_text(plan))
        folder = create_folder(plan, mlruns)
    drive(plan, folder, open_store(config, mlruns), steps=False)
    console.print()
    return folder
