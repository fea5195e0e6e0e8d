"""What is written down of trials and of a sweep's end: JSON records, and their order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lorasweep.training.settings import Hyperparameters, Metric

if TYPE_CHECKING:
    from lorasweep.training.loop.state import Evaluation

TrialState = Literal["running", "completed", "stopped", "failed"]
SweepState = Literal["running", "finished", "interrupted", "failed"]


# A trial's id names its files and folders; a record that somebody changed must not lead out of the sweep's.
TrialId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]


class Record(BaseModel):
    """Base of what is written as JSON; later versions may add fields, so unknown ones are ignored."""

    # Hyperparameters are written under their older name, so that every version reads every folder.
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True, serialize_by_alias=True)


def _without_unknown(value: Any) -> Any:
    """Hyperparameters that a later version of lorasweep searched are ignored, as other unknown fields are."""
    known = Hyperparameters.model_fields
    return {k: v for k, v in value.items() if k in known} if isinstance(value, dict) else value


RecordedHyperparameters = Annotated[Hyperparameters, BeforeValidator(_without_unknown)]


class EvaluationRecord(Record):
    """One evaluation of a trial: training's `Evaluation` as plain numbers, with the best score so far.

    Attributes:
        rung: evaluations so far, from 1.
        step: optimiser steps so far.
        epoch: passes over the training rows so far, with its fraction.
        learning_rate: at the last step.
        train_loss: mean over the steps since the rung before, in nats.
        accuracy, macro_f1, loss: on the validation split; in [0, 1], [0, 1] and nats.
        seconds: the trial's time so far, evaluations included.
        samples_per_second: training rows a second since the rung before.
        score: the best so far, by the sweep's metric.
        system: measurements of the trial's process, with `--system-metrics`.
    """

    rung: int
    step: int = 0
    epoch: float | None = None
    learning_rate: float | None = None
    train_loss: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    loss: float | None = None
    seconds: float = 0.0
    samples_per_second: float | None = None
    score: float | None = None
    system: dict[str, float] | None = None

    @classmethod
    def of(
        cls, evaluation: Evaluation, best: float, system: Mapping[str, float] | None = None
    ) -> EvaluationRecord:
        """The record of an evaluation; `best` is the best score so far."""
        return cls.model_validate({**evaluation.to_dict(), "score": best, "system": system or None})

    def by(self, metric: Metric) -> float | None:
        """The validation score by one metric."""
        value: float | None = getattr(self, metric)
        return value


class TrialRecord(Record):
    """One trial: its hyperparameters, every evaluation, and how it ended.

    Attributes:
        id: `t` and Optuna's trial number.
        ray_id: Ray Tune's own id of it.
        hyperparameters: all of them, searched or not.
        searched: names of those that the space searches.
        evaluations: one a rung.
        score: the best evaluation's, by the sweep's metric.
        best_rung: the rung of that evaluation.
        trainable_parameters: of adapter and head.
        seconds: time the trial itself took.
        started, ended: Unix time.
        error: one line, where it failed.
        checkpoint: of the best evaluation: a path, or a path inside `--storage`.
        last_checkpoint: of the last evaluation, from which the trial can go on.
        notes: what the user should know, such as a micro-batch halved for want of memory.
    """

    id: TrialId
    number: int
    ray_id: str = ""
    state: TrialState = "running"
    hyperparameters: RecordedHyperparameters = Field(Hyperparameters(), alias="settings")
    searched: tuple[str, ...] = ()
    evaluations: tuple[EvaluationRecord, ...] = ()
    score: float | None = None
    best_rung: int | None = None
    trainable_parameters: int | None = None
    seconds: float = 0.0
    started: float = 0.0
    ended: float | None = None
    error: str | None = None
    checkpoint: str | None = None
    last_checkpoint: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def reached(self) -> int:
        """The last rung that it was evaluated at, 0 before the first."""
        return self.evaluations[-1].rung if self.evaluations else 0


class TestScores(Record):
    """Scores on the test split; accuracy and macro-F1 in [0, 1], loss in nats."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    accuracy: float
    macro_f1: float
    loss: float


class Winner(Record):
    """The chosen trial and its one look at the test split.

    Attributes:
        score: its best evaluation in the search, by the sweep's metric.
        interval: 95 % bootstrap interval of each test score, (low, high).
        rule: by which it was chosen, in words.
    """

    id: TrialId
    score: float
    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    test: TestScores
    interval: dict[str, tuple[float, float]] = {}
    rule: str = ""


class Confirmed(Record):
    """A trial's hyperparameters trained again on other seeds.

    Attributes:
        scores: validation score by seed. The search's own is left out: it was picked for being high.
        mean: of the scores.
        spread: their standard deviation (n - 1), 0 for a single one.
    """

    id: TrialId
    scores: dict[str, float]
    mean: float
    spread: float


class Reference(Record):
    """The untuned settings, trained with the same budget in the same sweep."""

    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    score: float
    test: TestScores
    seconds: float


class UnmergedReference(Record):
    """The winner's settings trained on the labels as they were before they were merged.

    Attributes:
        classes: that there are of these labels.
        score: best evaluation on the validation split, over these classes.
        test: scores over these classes.
        merged: scores of the same predictions, each taken for its merged class: what the winner compares with.
    """

    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    classes: int
    score: float
    test: TestScores
    merged: TestScores
    seconds: float


class RegisteredVersion(Record):
    """The winner in MLflow's registry.

    Attributes:
        alias: `champion` or `challenger`, as it was decided when the version was made.
        reason: why, in words, with both scores.
    """

    name: str
    version: str
    alias: str
    reason: str


class SweepResult(Record):
    """How a sweep ended.

    Attributes:
        seconds: wall time, summed over its runs.
        unmerged: the winner's settings on the labels before they were merged, where they were.
        baselines: name → test scores of what needs no neural network.
        confirmed: the best trials on other seeds, the best mean first.
        choices: rule → the trial that would have won by it.
        also_tested: trials whose test score was looked at when they were the winner of fewer trials.
        published: MLflow has all of it.
        registered: the version that the winner was made.
    """

    state: SweepState
    metric: Metric
    seconds: float = 0.0
    winner: Winner | None = None
    untuned: Reference | None = None
    unmerged: UnmergedReference | None = None
    baselines: dict[str, TestScores] = {}
    confirmed: tuple[Confirmed, ...] = ()
    choices: dict[str, str] = {}
    also_tested: tuple[Winner, ...] = ()
    published: bool = False
    registered: RegisteredVersion | None = None
    error: str | None = None


def rank_trials(trials: list[TrialRecord], higher: bool) -> list[TrialRecord]:
    """Trials that have a score, the best first; of equal ones the smaller adapter, then the earlier."""
    scored = [trial for trial in trials if trial.score is not None]
    return sorted(
        scored,
        key=lambda trial: (
            -(trial.score or 0.0) if higher else (trial.score or 0.0),
            trial.trainable_parameters or 0,
            trial.number,
        ),
    )


def trial_id(number: int) -> str:
    """The name of a trial in every record: `t` and its number."""
    return f"t{number:03d}"


def now() -> float:
    """Unix time in seconds."""
    return time.time()
