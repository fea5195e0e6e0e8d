"""What is written down of a comparison: its settings, a record for each row, and the folder of both."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import DataSettings, Hyperparameters, Precision, Settings, TrainingSettings
from lorasweep.tuning.record.config import validation_line
from lorasweep.tuning.record.files import hold, read_record, write_bytes, write_text
from lorasweep.tuning.record.results import Record, TestScores


class CompareSettings(Settings):
    """A comparison from its data to its rows; all rows share data, splits, seed and budget."""

    name: str
    sweep: str = Field(description="the sweep whose winner is the tuned row")
    data: DataSettings | None = Field(None, description="the rows; none is the sweep's own prepared rows")
    base_model: str
    training: TrainingSettings
    batch_size: int = Field(32, ge=1, description="of the rows that are not tuned")
    full_rate: float = Field(1e-4, gt=0, description="learning rate of full fine-tuning")
    lora_rate: float = Field(2e-5, gt=0, description="learning rate of the untuned LoRA rows")
    tune_baseline: bool = Field(False, description="search the rates of full fine-tuning and plain LoRA too")
    baseline_trials: int = Field(6, ge=1, description="trials of each of those searches")


# Plain numbers of a row, by the names that `lorasweep.tuning.compare.measure.Measured` has for them.
COSTS = (
    "epoch_seconds",
    "samples_per_second",
    "seconds",
    "trainable_parameters",
    "stored_bytes",
    "peak_bytes",
)


class RowPlan(Record):
    """One row that is to be trained.

    Attributes:
        id: short and plain; the name of its file.
        name: what a person reads.
        settings: all hyperparameters.
        precision: of the training, `auto` being AMP as the machine does it best.
        about: how its settings came about.
        unmerged: trained on the labels as they were before they were merged.
    """

    id: str
    name: str
    settings: Hyperparameters
    precision: Precision
    about: str
    unmerged: bool = False


class RowLatency(Record):
    """Milliseconds for a batch of texts.

    Attributes:
        form: `adapter` beside its base model, `merged` into it, or `whole`.
    """

    form: str
    precision: str
    batch: int
    median: float
    p95: float


class RowOperator(Record):
    """What a kind of operator takes in one training step, forward and backward: see `compare.profile`."""

    name: str
    milliseconds: float
    megabytes: float


class ComparedRow(Record):
    """One row that was trained and measured.

    Attributes:
        plan: what it was.
        precision: that it was trained in.
        same_as: the row that it is too, as AMP has no type to use; it was not trained again.
        merged: scores of an unmerged row's predictions after they are merged.
        interval: 95 % bootstrap interval of each test score, (low, high).
        stored_bytes, peak_bytes, epoch_seconds, samples_per_second: see `lorasweep.tuning.compare.measure`.
        error: one line, where it failed; then nothing else is known.
    """

    plan: RowPlan
    precision: str = ""
    same_as: str | None = None
    test: TestScores | None = None
    merged: TestScores | None = None
    interval: dict[str, tuple[float, float]] = Field(default_factory=dict)
    validation_score: float | None = None
    train_rows: int = 0
    epoch_seconds: float = 0.0
    samples_per_second: float = 0.0
    seconds: float = 0.0
    trainable_parameters: int = 0
    stored_bytes: int = 0
    peak_bytes: int = 0
    latencies: tuple[RowLatency, ...] = ()
    operators: tuple[RowOperator, ...] = ()
    machine: dict[str, Any] = Field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    error: str | None = None


class ComparisonFolder:
    """Reads and writes one comparison's folder; a row that is done is not trained again."""

    def __init__(self, mlruns: Path, name: str) -> None:
        self.mlruns = mlruns
        self.name = name
        self.path = mlruns / "comparisons" / name

    @property
    def data(self) -> Path:
        """Folder of the prepared rows."""
        return self.path / "data"

    def open(self, settings: CompareSettings) -> None:
        """Make the folder, or find it with the same settings.

        Raises:
            SettingsError: there is a comparison of this name with other settings, or no folder can be made.
        """
        path = self.path / "settings.yaml"
        if path.is_file():
            known = self.settings()
            if known != settings:
                names = [key for key in CompareSettings.model_fields if _differ(known, settings, key)]
                raise SettingsError(
                    f"comparison {self.name}: was begun with other settings ({', '.join(names)}); choose "
                    "another --name, or give the same again to go on with it"
                )
            return
        try:
            (self.path / "rows").mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            write_text(path, text)
        except OSError as error:
            raise SettingsError(
                f"{self.path}: cannot be written ({error.strerror}); name another folder with --mlruns"
            ) from error

    def settings(self) -> CompareSettings:
        """The settings it was begun with.

        Raises:
            SettingsError: the file was changed, and holds no settings any more.
        """
        path = self.path / "settings.yaml"
        try:
            return CompareSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            raise SettingsError(f"{path}: {validation_line(error)}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(
                f"{path}: cannot be read ({type(error).__name__}); choose another --name"
            ) from error

    def rows(self) -> dict[str, ComparedRow]:
        """Id → row, of those that are done."""
        paths = sorted((self.path / "rows").glob("*.json"))
        rows = [read_record(path, ComparedRow) for path in paths]
        return {row.plan.id: row for row in rows}

    def write_row(self, row: ComparedRow) -> None:
        """Keep one row."""
        write_text(self.path / "rows" / f"{row.plan.id}.json", row.model_dump_json(indent=1))

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write tables and pictures."""
        for name, content in files.items():
            write_bytes(self.path / name, content)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the comparison: one process at a time.

        Raises:
            SettingsError: another process works on it.
        """
        return hold(
            self.path / "lock",
            f"comparison {self.name}: another process is working on it; wait for it, or choose another --name",
        )


def _differ(one: CompareSettings, other: CompareSettings, key: str) -> bool:
    return bool(getattr(one, key) != getattr(other, key))
