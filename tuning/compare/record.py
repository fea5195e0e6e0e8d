"""What a comparison writes to disk: its settings, a record for each row, and the folder that holds them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from lorasweep.training.errors import SettingsError
from lorasweep.training.files.yaml_file import dump_yaml, read_yaml
from lorasweep.training.metrics import metric_key
from lorasweep.training.settings import DataSettings, Precision, Settings, TrainingSettings
from lorasweep.training.threshold_rules import Threshold
from lorasweep.tuning.record.config import check_name, setting_error
from lorasweep.tuning.record.files import hold, read_record, write_bytes, write_text
from lorasweep.tuning.record.results import TestScores
from lorasweep.tuning.record.trial_records import Record, RecordedHyperparameters

# A comparison's own sweep searches on a part of the training rows; the comparison trains on all of them.
SEARCH_ROWS = 4000
# Its other options; the comparison trains untuned settings itself.
SWEEP_OPTIONS = {"epochs": 2, "trials": 8, "compare_untuned": False}


class CompareSettings(Settings):
    """Settings of a comparison; all its rows share data, splits, seed and budget."""

    name: str = Field(description="Name of the comparison.")
    sweep: str = Field(description="Sweep whose winner is compared.")
    data: DataSettings | None = Field(None, description="Data to train on; none = the sweep's prepared rows.")
    base_model: str
    training: TrainingSettings
    threshold: Threshold | None = Field(
        None, description="The sweep's, by which thresholds of several labels a text are chosen in every row."
    )
    batch_size: int = Field(32, ge=1, description="Batch size of untuned rows.")
    full_rate: float = Field(1e-4, gt=0, description="Learning rate of full fine-tuning.")
    lora_rate: float = Field(2e-5, gt=0, description="Learning rate of untuned LoRA.")
    tune_baseline: bool = Field(False, description="Tune both learning rates, too, each in a sweep.")
    baseline_trials: int = Field(6, ge=1, description="Trials of each search for a learning rate.")

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        return check_name(name)

    @classmethod
    def build(cls, **entries: Any) -> CompareSettings:
        """Validate settings.

        Raises:
            SettingError: names the setting, its value and what is allowed.
        """
        try:
            return cls(**entries)
        except ValidationError as error:
            raise setting_error(error, "settings") from error


class RowPlan(Record):
    """One row to be trained.

    Attributes:
        id: name of its file.
        name: as shown in tables.
        precision: of the training; `auto` is the best AMP type of the machine.
        about: where its hyperparameters come from.
        unmerged: trained on the labels as they were before merging.
    """

    id: str
    name: str
    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    precision: Precision
    about: str
    unmerged: bool = False


class Latency(Record):
    """Milliseconds from token ids in memory to logits in memory, for one batch of texts.

    Attributes:
        form: `adapter` beside the base model, `merged` into it, or `whole` for full fine-tuning.
        precision: `fp32` or the AMP type.
        batch: texts at once.
        median, p95: over the repeats.
    """

    form: str
    precision: str
    batch: int
    median: float
    p95: float


class OperatorUse(Record):
    """What one kind of operator takes in a training step, forward and backward.

    Attributes:
        milliseconds: on the device, without the operators that it calls.
        megabytes: allocated, in units of 10^6 bytes, including what is freed again later.
    """

    name: str
    milliseconds: float
    megabytes: float


class Costs(Record):
    """What a row's training took and its model needs.

    Attributes:
        precision: of the training.
        validation_score: of the best evaluation, by the settings' metric.
        samples_per_second: training rows a second, the median over the intervals between evaluations; the first
            interval (warm-up) is left out if there are others.
        epoch_seconds: training rows divided by `samples_per_second`, so without evaluations.
        seconds: the whole training, evaluations included.
        stored_bytes: of the weights to keep: an adapter with its head, or the whole model.
        peak_bytes: memory added by the training, the model included.
        latencies, operators: without those that memory does not suffice for.
        others_share: of the cores' time while latencies were taken, what other programs used.
        thresholds: of several labels a text, by the validation rows; empty for one label a text.
    """

    precision: str = ""
    validation_score: float | None = None
    epoch_seconds: float = 0.0
    samples_per_second: float = 0.0
    seconds: float = 0.0
    trainable_parameters: int = 0
    stored_bytes: int = 0
    peak_bytes: int = 0
    latencies: tuple[Latency, ...] = ()
    others_share: float = 0.0
    operators: tuple[OperatorUse, ...] = ()
    thresholds: tuple[float, ...] = ()


# The costs that are one number each.
PLAIN_COSTS = (
    "epoch_seconds",
    "samples_per_second",
    "seconds",
    "trainable_parameters",
    "stored_bytes",
    "peak_bytes",
)


class ComparedRow(Costs):
    """One row after its training.

    Attributes:
        same_as: id of an equal row that was trained in its place, where AMP is fp32.
        interval: 95 % bootstrap interval of each test score, (low, high).
        merged: an unmerged row's test scores after merging its predictions.
        machine: processor, GPUs and versions; see `lorasweep.tuning.record.machine`.
        started, ended: Unix time.
        error: one line if it failed; then only plan, machine and times are set.
    """

    plan: RowPlan
    same_as: str | None = None
    test: TestScores | None = None
    merged: TestScores | None = None
    interval: dict[str, tuple[float, float]] = Field(default_factory=dict)
    train_rows: int = 0
    machine: dict[str, Any] = Field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    error: str | None = None

    def figures(self) -> dict[str, float]:
        """Every number of the row, by its name in MLflow; empty if it failed."""
        if self.test is None:
            return {}
        figures = {f"test/{metric_key(name)}": value for name, value in self.test.values().items()}
        merged = self.merged.values() if self.merged else {}
        figures |= {f"merged_after/{metric_key(name)}": value for name, value in merged.items()}
        for name, (low, high) in self.interval.items():
            figures |= {f"test/{metric_key(name)}_low": low, f"test/{metric_key(name)}_high": high}
        figures |= {name: float(getattr(self, name)) for name in PLAIN_COSTS}
        if self.validation_score is not None:
            figures["score"] = self.validation_score
        for latency in self.latencies:
            key = f"latency_ms/{latency.form}_{latency.precision}_{latency.batch}"
            figures |= {key: latency.median, f"{key}_p95": latency.p95}
        for use in self.operators:
            key = re.sub(r"\W+", "_", use.name).strip("_")
            figures |= {f"step_ms/{key}": use.milliseconds, f"step_mb/{key}": use.megabytes}
        return figures


class ComparisonFolder:
    """The folder of one comparison: `mlruns/comparisons/<name>/`."""

    def __init__(self, mlruns: Path, name: str) -> None:
        self.mlruns = mlruns
        self.name = name
        self.path = mlruns / "comparisons" / name

    @property
    def data(self) -> Path:
        """Folder of the prepared data."""
        return self.path / "data"

    def open(self, settings: CompareSettings) -> CompareSettings:
        """Create the folder, or check that it has the same settings.

        Returns:
            The settings to go on with: those given, but of a comparison that an older version has begun, without a
            threshold, as its rows were judged without.

        Raises:
            SettingsError: a comparison of this name has other settings, or the folder cannot be written.
        """
        path = self.path / "settings.yaml"
        if path.is_file():
            before = self.settings()
            if "threshold" not in before.model_fields_set:
                settings = settings.model_copy(update={"threshold": None})
            differing = [
                k for k in CompareSettings.model_fields if getattr(before, k) != getattr(settings, k)
            ]
            if differing:
                raise SettingsError(
                    f"comparison {self.name}: was begun with other settings ({', '.join(differing)}); choose "
                    "another --name, or repeat the first settings to continue it"
                )
            return settings
        try:
            (self.path / "rows").mkdir(parents=True, exist_ok=True)
            write_text(path, dump_yaml(settings.model_dump(mode="json")))
        except OSError as error:
            raise SettingsError(
                f"{self.path}: cannot be written ({error.strerror}); name another folder with --mlruns"
            ) from error
        return settings

    def settings(self) -> CompareSettings:
        """The settings it was begun with.

        Raises:
            SettingsError: the file is missing or broken.
        """
        path = self.path / "settings.yaml"
        try:
            return CompareSettings.model_validate(read_yaml(path))
        except ValidationError as error:
            raise setting_error(error, str(path)) from error
        except SettingsError as error:
            raise SettingsError(f"{error}; choose another --name") from error

    def rows(self) -> dict[str, ComparedRow]:
        """Id → row, of the rows on record."""
        paths = sorted((self.path / "rows").glob("*.json"))
        rows = [read_record(path, ComparedRow) for path in paths]
        return {row.plan.id: row for row in rows}

    def write_row(self, row: ComparedRow) -> None:
        """Write one row's record."""
        write_text(self.path / "rows" / f"{row.plan.id}.json", row.model_dump_json(indent=1))

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write tables and plots, by file name."""
        for name, content in files.items():
            write_bytes(self.path / name, content)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the comparison: one process at a time.

        Raises:
            SettingsError: another process is working on it.
        """
        return hold(
            self.path / "lock",
            f"comparison {self.name}: another process is working on it; wait for it, or choose another --name",
        )
