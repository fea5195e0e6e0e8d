"""`compare`: full fine-tuning, untuned LoRA and a sweep's winner side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.display import Waiting
from lorasweep.driving import continue_or_run, run_options, split_data
from lorasweep.libraries import quietly
from lorasweep.options import COMPARE_OPTIONS, show_options, to_entries
from lorasweep.spelling import naming_options
from lorasweep.tuning.compare.record import SEARCH_ROWS
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.sweep.plan.defaults import stem, sweep_config

if TYPE_CHECKING:
    from lorasweep.tuning.compare.compare import Comparison


@quietly
def compare(
    data: Any = None,
    *,
    sweep: str | None = None,
    all_rows: bool = False,
    search_rows: int = SEARCH_ROWS,
    batch_size: int = 32,
    full_rate: float = 1e-4,
    lora_rate: float = 2e-5,
    tune_baseline: bool = False,
    baseline_trials: int = 6,
    name: str | None = None,
    mlruns: str | Path = "mlruns",
    verbose: bool = True,
    **options: Any,
) -> Comparison:
    """Train full fine-tuning, untuned LoRA and a sweep's winner side by side, and measure what each costs.

    Interrupted, the same call goes on: what is done is not done again.

    Args:
        data: as `run` takes it; of rows in memory the comparison trains on what the sweep searches on.
        sweep: a finished sweep to compare; without it one is run.
        all_rows: train the rows on all that the sweep's data file has.
        search_rows: training rows of the sweep that is run.
        batch_size: of the rows that are not tuned.
        full_rate: learning rate of full fine-tuning.
        lora_rate: learning rate of untuned LoRA.
        tune_baseline: search both rates, too, in sweeps of their own.
        baseline_trials: trials of each of these sweeps.
        name: of the comparison.
        mlruns: the folder of sweeps and records.
        verbose: show what is done.
        options: those listed below.

    Raises:
        SettingsError: options that contradict each other, or an earlier comparison of this name differs.
        SweepStoppedError: a sweep was interrupted.
        DataError, ModelError: data or base model cannot be read.

    Example:
        >>> comparison = lorasweep.compare(sweep="demo", max_train_rows=60)  # doctest: +SKIP
        >>> comparison.rows["accuracy"]  # doctest: +SKIP
    """
    from lorasweep.tuning.compare.compare import compare_sweep

    mlruns = Path(mlruns)
    paths, frames = split_data(data)
    options |= {option: path for option, path in paths.items() if path is not None}
    if frames:
        rows = {"max_train_rows": min(search_rows, options.get("max_train_rows") or search_rows)}
        sweep = run_options(data, options | rows, mlruns=mlruns, verbose=verbose).folder.name
        options = {}

    def configure(given: dict[str, Any]) -> SweepConfig:
        return sweep_config(to_entries(given), mlruns)

    def run_to_its_end(config: SweepConfig) -> SweepFolder:
        with report.paused():
            return continue_or_run(config, mlruns, verbose)

    baselines = {
        "batch_size": batch_size,
        "full_rate": full_rate,
        "lora_rate": lora_rate,
        "tune_baseline": tune_baseline,
        "baseline_trials": baseline_trials,
    }
    with (
        naming_options(options | baselines | {"name": name}),
        Waiting(verbose, "reading") as report,
    ):
        return compare_sweep(
            options,
            name=name or f"{sweep or stem(options.get('data'))}-compared",
            mlruns=mlruns,
            configure=configure,
            run_sweep=run_to_its_end,
            report=report,
            sweep=sweep,
            all_rows=all_rows,
            search_rows=search_rows,
            **baselines,
        )


show_options(compare, COMPARE_OPTIONS)
