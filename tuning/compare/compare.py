"""A whole comparison: the sweeps it builds on, its rows, its tables and its runs in MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.training.errors import SettingsError, SweepStoppedError
from lorasweep.training.settings import DataSettings
from lorasweep.tuning.compare.record import (
    SEARCH_ROWS,
    SWEEP_OPTIONS,
    ComparedRow,
    CompareSettings,
    ComparisonFolder,
)
from lorasweep.tuning.record.commands import shell_command
from lorasweep.tuning.record.config import RegistrySettings, SearchSettings, SweepConfig, merge
from lorasweep.tuning.record.folder import SweepFolder, find_sweep
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.trials.ray_access import guard_local_ray

if TYPE_CHECKING:
    import pandas as pd

# Figures that a notebook shows.
SHOWN = (
    "accuracy",
    "macro_f1",
    "loss",
    "epoch_seconds",
    "trainable_parameters",
    "stored_bytes",
    "peak_bytes",
)
# Options that may be given beside a finished sweep: they are the comparison's own.
BESIDE_SWEEP = ("max_train_rows", "epochs", "tracking_uri")


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        records: the rows in the order of its tables; one that failed has an `error`.
        files: tables, JSON and plots, in `path`.

    Example:
        >>> comparison = lorasweep.compare(sweep="demo")  # doctest: +SKIP
        >>> comparison.rows.loc["tuned", "accuracy"]  # doctest: +SKIP
    """

    folder: ComparisonFolder
    settings: CompareSettings
    records: tuple[ComparedRow, ...]
    files: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    @property
    def failed(self) -> tuple[ComparedRow, ...]:
        """The rows that failed; a second call trains them again."""
        return tuple(row for row in self.records if row.error is not None)

    @property
    def rows(self) -> pd.DataFrame:
        """A row for each record, by its id: name, precision, error, and a column for each figure.

        Test scores are `accuracy`, `macro_f1` and `loss`, with `_low` and `_high` for their 95 % intervals;
        latencies `latency_ms_<form>_<precision>_<texts>`; a training step's operators `step_ms_<operator>` and
        `step_mb_<operator>`.
        """
        import pandas as pd

        entries = [
            {"id": row.plan.id, "name": row.plan.name, "precision": row.precision, "error": row.error}
            | {key.removeprefix("test/").replace("/", "_"): value for key, value in row.figures().items()}
            for row in self.records
        ]
        return pd.DataFrame(entries).set_index("id")

    def __repr__(self) -> str:
        return f"Comparison({self.settings.name!r}, {len(self.records)} rows, {str(self.path)!r})"

    def _repr_html_(self) -> str:
        table = self.rows.reindex(columns=["name", "precision", *SHOWN, "error"])
        return str(table.to_html(index=False, na_rep=""))


def compare_sweep(
    options: Mapping[str, Any],
    *,
    name: str,
    mlruns: Path,
    configure: Callable[[dict[str, Any]], SweepConfig],
    run_sweep: Callable[[SweepConfig], SweepFolder],
    report: Callable[[str], None],
    sweep: str | None = None,
    all_rows: bool = False,
    search_rows: int = SEARCH_ROWS,
    **baselines: Any,
) -> Comparison:
    """Train full fine-tuning, untuned LoRA and a sweep's winner on the same data, and measure what each costs.

    Rows and sweeps that are finished are not run again, so the same call continues an interrupted comparison.

    Args:
        options: options of a sweep by their names on the command line, with underscores; None is not given.
        name: of the comparison.
        configure: makes a sweep's configuration from its options.
        run_sweep: runs a sweep to its end, or continues it.
        report: called with a line about what is done now.
        sweep: a finished sweep to compare; without it one is run.
        all_rows: train on the whole data file of `sweep`, not on the rows that it searched with.
        search_rows: training rows of the sweep that is run.
        baselines: further fields of `CompareSettings`: `batch_size`, `full_rate`, `lora_rate`, `tune_baseline`
            and `baseline_trials`.

    Raises:
        SettingsError: options that contradict each other, or an earlier comparison of this name.
        SweepStoppedError: a sweep was interrupted.
        DataError, ModelError: data or base model cannot be read.
    """
    given = {key: value for key, value in options.items() if value is not None and value != []}
    config = _sweep_config(given, sweep, f"{name}-sweep", mlruns, configure, search_rows)
    # Ray reads its variables when it is imported, as these modules do.
    guard_local_ray(config.resources.address)
    from lorasweep.tuning.compare.mlflow import publish
    from lorasweep.tuning.compare.rows import row_plans
    from lorasweep.tuning.compare.run import prepare, run_rows
    from lorasweep.tuning.tracking.store import tracking_store

    settings = CompareSettings.build(
        name=name,
        sweep=config.name,
        data=_row_data(config, given.get("max_train_rows"), own=sweep is not None and not all_rows),
        base_model=config.base_model,
        training=_rows_config(config, given).training,
        threshold=config.choice.threshold,
        **baselines,
    )
    folder = ComparisonFolder(mlruns, name)
    settings = folder.open(settings)
    with folder.lock():
        searched = find_sweep(mlruns, sweep) if sweep else find_or_run(config, mlruns, run_sweep)
        best = SweepRecord(searched).won("compare", finished=True)[1].hyperparameters
        # All rows have the winner's base model, which the sweep may have chosen.
        base_model = best.base_model or searched.config().base_model
        settings = settings.model_copy(update={"base_model": base_model})
        rates: dict[str, float] = {}
        if settings.tune_baseline:
            for rate, baseline in _baseline_sweeps(config, settings).items():
                rated = SweepRecord(find_or_run(baseline, mlruns, run_sweep))
                winner = rated.won("compare", finished=True)[1]
                rates[rate] = winner.hyperparameters.learning_rate
        report("reading and encoding the data")
        prepared = prepare(settings, folder, searched)
        classes = len(prepared.dataset.original_names)
        plans = row_plans(settings, best, unmerged_classes=classes, **rates)
        rows = run_rows(plans, settings, folder, prepared, report)
        files = _files(settings, rows)
        folder.write(files)
        report("writing to MLflow")
        uri = tracking_store(given.get("tracking_uri") or config.tracking_uri, mlruns)
        publish(folder, settings, rows, files, uri)
    return Comparison(folder, settings, tuple(rows), tuple(folder.path / file for file in files))


def _sweep_config(
    given: dict[str, Any],
    sweep: str | None,
    name: str,
    mlruns: Path,
    configure: Callable[[dict[str, Any]], SweepConfig],
    search_rows: int,
) -> SweepConfig:
    """The configuration of the sweep to compare, finished or still to be run."""
    if sweep is None:
        rows = min(search_rows, given.get("max_train_rows", search_rows))
        return configure(SWEEP_OPTIONS | given | {"max_train_rows": rows, "name": name})
    fixed = [f"--{key.replace('_', '-')}" for key in given if key not in BESIDE_SWEEP]
    if fixed:
        raise SettingsError(
            f"--sweep {sweep} with {', '.join(fixed)}: the sweep has set these; leave them out"
        )
    return find_sweep(mlruns, sweep).config()


def _rows_config(config: SweepConfig, given: Mapping[str, Any]) -> SweepConfig:
    """The sweep's configuration with what the rows are to have of their own.

    Raises:
        SettingError: such a value is not allowed.
    """
    own = (("training", "epochs"), ("data", "max_train_rows"))
    entries = {group: {name: given[name]} for group, name in own if name in given}
    # Of several labels a text, a metric that nobody has asked for gives way to another.
    own_and_given = merge(config.model_dump(mode="json", exclude_unset=True), entries)
    return SweepConfig.build(own_and_given, "settings")


def _row_data(config: SweepConfig, max_train_rows: int | None, own: bool) -> DataSettings | None:
    """Data of the rows; None for the rows that the sweep has prepared."""
    if own and max_train_rows is None:
        return None
    return config.data.model_copy(update={"max_train_rows": max_train_rows, "max_validation_rows": None})


def _baseline_sweeps(config: SweepConfig, settings: CompareSettings) -> dict[str, SweepConfig]:
    """Sweeps over each baseline's learning rate with the main sweep's data and budget, by the space's name."""
    return {
        f"{method}_rate": config.model_copy(
            update={
                "name": f"{settings.name}-{method}-rate",
                "base_model": settings.base_model,
                "search": SearchSettings(space=f"{method}_rate", trials=settings.baseline_trials),
                "choice": config.choice.model_copy(update={"confirm": None, "baselines": False}),
                "registry": RegistrySettings(enabled=False),
                "compare_untuned": False,
                "keep": 1,
            }
        )
        for method in ("full", "lora")
    }


def find_or_run(
    config: SweepConfig, mlruns: Path, run_sweep: Callable[[SweepConfig], SweepFolder]
) -> SweepFolder:
    """The finished sweep of a configuration, run or continued if need be.

    Raises:
        SettingsError: a sweep of this name has other settings.
        SweepStoppedError: it was interrupted.
    """
    searched: dict[str, Any] = dict.fromkeys(("data", "base_model", "training", "search", "choice"), True)
    if "base_model" not in config.model_fields_set:
        del searched["base_model"]  # it became one that the space chooses
    if "max_length" not in config.training.model_fields_set:
        # Then it became what the base model can read.
        searched["training"] = set(type(config.training).model_fields) - {"max_length"}
    folder, wanted = SweepFolder(mlruns, config.name), config.model_dump(include=searched)
    if folder.exists() and folder.config().model_dump(include=searched) != wanted:
        raise SettingsError(
            f"sweep {config.name}: exists with other settings; choose another --name, or compare that sweep: "
            f"{shell_command(mlruns, 'compare', '--sweep', config.name)}"
        )
    if not folder.exists() or folder.state() != "finished":
        folder = run_sweep(config)
    if folder.state() != "finished":
        raise SweepStoppedError(
            f"sweep {config.name}: is {folder.state()}; repeat the command to continue it"
        )
    return folder


def _files(settings: CompareSettings, rows: list[ComparedRow]) -> dict[str, bytes]:
    """Tables, JSON and plots, by file name."""
    from lorasweep.tuning.compare.plot import comparison_page
    from lorasweep.tuning.compare.text import comparison_markdown

    dumped = [row.model_dump(mode="json") for row in rows]
    entries = {"settings": settings.model_dump(mode="json"), "rows": dumped}
    files = {
        "comparison.md": comparison_markdown(rows, settings).encode(),
        "comparison.json": json.dumps(entries, indent=1, ensure_ascii=False).encode(),
    }
    page = comparison_page(rows)
    return files if page is None else files | {"comparison.html": page.encode()}
