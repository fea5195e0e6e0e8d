"""JSON records of trials and of a sweep's result, and how trials are ranked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lorasweep.training.metrics import ALWAYS, Metric, higher_is_better
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.ran_on import RanOn
from lorasweep.tuning.record.scores import TestScores as TestScores
from lorasweep.tuning.record.scores import Thresholds as Thresholds

if TYPE_CHECKING:
    from lorasweep.training.loop.state import Evaluation

# On disk a trial runs until it ends. Readers see it as interrupted where its sweep does not run.
TrialState = Literal["running", "completed", "stopped", "failed", "interrupted"]
SweepState = Literal["running", "finished", "interrupted", "failed"]


# A trial's id names files and folders: an edited record must not lead out of the sweep's folder.
TrialId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]


class Record(BaseModel):
    """Base of all JSON records. Unknown fields are ignored: later versions may add some."""

    # Hyperparameters keep the name they had first on disk, so every version reads every folder.
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True, serialize_by_alias=True)


def _without_unknown(value: Any) -> Any:
    """Hyperparameters that only a later version knows are ignored, like other unknown fields."""
    names = Hyperparameters.model_fields
    return {k: v for k, v in value.items() if k in names} if isinstance(value, dict) else value


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
        more: its other scores by metric; empty in older records.
        seconds: the trial's time so far, evaluations included.
        samples_per_second: training rows a second since the rung before.
        score: the best so far, by the sweep's metric.
        objective: the best so far, by what stops trials and guides the sampler; None in older records, where it
            was the metric.
        standard_error: of this evaluation's score by the sweep's metric, over the validation rows.
        system: resource use of the trial's process, with `--system-metrics`.
    """

    rung: int
    step: int = 0
    epoch: float | None = None
    learning_rate: float | None = None
    train_loss: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    loss: float | None = None
    more: dict[str, float] = {}
    seconds: float = 0.0
    samples_per_second: float | None = None
    score: float | None = None
    objective: float | None = None
    standard_error: float | None = None
    system: dict[str, float] | None = None

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        best: float,
        objective: float,
        system: Mapping[str, float] | None = None,
        standard_error: float | None = None,
    ) -> EvaluationRecord:
        """The record of an evaluation; `best` and `objective` are the best so far by the metric and the objective."""
        own = {"score": best, "objective": objective, "standard_error": standard_error}
        return cls.model_validate({**evaluation.to_dict(), **own, "system": system or None})

    @property
    def judged(self) -> float | None:
        """The best so far by what stops trials and guides the sampler."""
        return self.score if self.objective is None else self.objective

    def by(self, metric: Metric) -> float | None:
        """The validation score by one metric; None where it is not on record."""
        value: float | None = getattr(self, metric) if metric in ALWAYS else self.more.get(metric)
        return value


class TrialRecord(Record):
    """One trial: its hyperparameters, every evaluation, and how it ended.

    Attributes:
        id: `t` and Optuna's trial number; of a finalist, its search trial's and `-full`.
        number: Optuna's trial number; of a finalist, its search trial's.
        ray_id: Ray Tune's own id of it.
        hyperparameters: all of them, searched or not.
        searched: names of those that the search space varies.
        start: place among the known-good settings that the sweep tries first, from 1; None for a proposed trial.
        finalist_of: id of the trial on a part of the rows whose hyperparameters this one trains on all rows.
        evaluations: one per rung.
        score: the best evaluation's, by the sweep's metric.
        best_rung: the rung of that evaluation.
        trainable_parameters: of adapter and head.
        seconds: time spent in the trial itself.
        started, ended: Unix time.
        stopped_by: why it ended before its full budget: `time` where the sweep's minutes were over, `early_end` where
            its validation loss no longer fell, which completes it; None for the stopping rule.
        error: one line, where it failed.
        checkpoint: of the best evaluation: a path, or a path inside `--storage`.
        last_checkpoint: of the last evaluation; an interrupted trial continues from it.
        ran_on: the node, device, precision and versions that it ran with, the latest where it moved; None in older
            records, and before its first evaluation.
        best_ran_on: those of its best evaluation, whose checkpoint is exported.
        notes: what the user should know, such as a micro-batch halved for lack of memory.
    """

    id: TrialId
    number: int
    ray_id: str = ""
    state: TrialState = "running"
    hyperparameters: RecordedHyperparameters = Field(Hyperparameters(), alias="settings")
    searched: tuple[str, ...] = ()
    start: int | None = None
    finalist_of: TrialId | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()
    score: float | None = None
    best_rung: int | None = None
    trainable_parameters: int | None = None
    seconds: float = 0.0
    started: float = 0.0
    ended: float | None = None
    stopped_by: Literal["time", "early_end"] | None = None
    error: str | None = None
    checkpoint: str | None = None
    last_checkpoint: str | None = None
    ran_on: RanOn | None = None
    best_ran_on: RanOn | None = None
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> tuple[float, ...]:
        """The running best at each rung, by what stops trials and guides the sampler."""
        return judged(self.evaluations)

    def tried_again(self) -> TrialRecord:
        """A trial that failed, as one that goes on from its last checkpoint; the failure stays among its notes."""
        notes = dict.fromkeys((*self.notes, f"tried again after it failed: {self.error}"))
        return self.model_copy(
            update={"state": "running", "error": None, "ended": None, "notes": tuple(notes)}
        )

    @property
    def best_evaluation(self) -> EvaluationRecord | None:
        """The evaluation that gave the score."""
        return next((entry for entry in self.evaluations if entry.rung == self.best_rung), None)

    @property
    def standard_error(self) -> float | None:
        """Of the score, over the validation rows; None without a score, and in older records."""
        best = self.best_evaluation
        return best.standard_error if best else None

    @property
    def losses(self) -> tuple[float | None, ...]:
        """The validation loss at each rung; None where it is not on record."""
        return tuple(evaluation.loss for evaluation in self.evaluations)

    @property
    def unfinished(self) -> bool:
        """It runs, or goes on when the sweep is resumed."""
        return self.state in ("running", "interrupted")

    @property
    def reached(self) -> int:
        """The last rung with an evaluation, 0 before the first."""
        return self.evaluations[-1].rung if self.evaluations else 0


class Winner(Record):
    """The chosen trial and its scores on the test split.

    Attributes:
        test: by the most probable class.
        thresholds: those of `--threshold`, with the test scores that they give.
        score: its best evaluation in the search, by the sweep's metric.
        interval: 95 % bootstrap interval of each test score, (low, high).
        rule: how it was chosen, in words.
    """

    id: TrialId
    score: float
    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    test: TestScores
    interval: dict[str, tuple[float, float]] = {}
    thresholds: Thresholds | None = None
    rule: str = ""


class Confirmed(Record):
    """A trial's hyperparameters retrained on other seeds.

    Attributes:
        scores: seed → validation score. The search's own score is left out: it was selected for being high.
        mean: of the scores.
        spread: their standard deviation (n - 1), 0 for a single one.
    """

    id: TrialId
    scores: dict[str, float]
    mean: float
    spread: float


class Reference(Record):
    """The untuned default hyperparameters, trained with the same budget."""

    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    score: float
    test: TestScores
    seconds: float


class StartReference(Record):
    """The known-good start: the first settings that the sweep tried, trained to the end and scored like the winner.

    Attributes:
        id: of its trial; the winner's where the search found nothing better.
        score: its best evaluation, by the sweep's metric.
        interval: 95 % bootstrap interval of each test score, (low, high).
    """

    id: TrialId
    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    score: float
    test: TestScores
    interval: dict[str, tuple[float, float]] = {}


class Gain(Record):
    """What the winner's test score has over another's, by the sweep's metric, on the same rows.

    Attributes:
        difference: winner minus the other; in the metric's unit (a share, or nats for the loss).
        interval: 95 % interval of the difference by a paired bootstrap over the test rows, (low, high).
    """

    difference: float
    interval: tuple[float, float] | None = None


class UnmergedReference(Record):
    """The winner's hyperparameters trained on the labels before merging.

    Attributes:
        classes: number of labels before merging.
        score: best evaluation on the validation split, over these classes.
        test: scores over these classes.
        merged: scores of the same predictions mapped to the merged labels; comparable with the winner's.
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
        alias: `champion` or `challenger`, as decided on registration.
        reason: why, with both scores.
    """

    name: str
    version: str
    alias: str
    reason: str


class SweepResult(Record):
    """How a sweep ended.

    Attributes:
        seconds: wall time, summed over its runs.
        stopped_by: why no trial followed before their number was reached: `time` or `patience`.
        start: the known-good start; None where the space has none.
        over_start, over_untuned: what the winner adds to the start, and to the untuned settings.
        near: ids of the trials whose validation score is within noise of the winner's.
        unmerged: the winner's hyperparameters on the labels before merging, if labels were merged.
        baselines: name → test scores of models without a neural network.
        confirmed: the best trials on other seeds, best mean first.
        choices: rule → the trial that would have won by it.
        also_tested: earlier winners, from before the sweep was extended, with their test scores.
        missing: steps after the trials that failed → why. `resume` tries them again.
        published: MLflow's copy is complete.
        registered: the winner's version in the model registry.
    """

    state: SweepState
    metric: Metric
    seconds: float = 0.0
    stopped_by: Literal["time", "patience"] | None = None
    winner: Winner | None = None
    start: StartReference | None = None
    over_start: Gain | None = None
    over_untuned: Gain | None = None
    near: tuple[TrialId, ...] = ()
    untuned: Reference | None = None
    unmerged: UnmergedReference | None = None
    baselines: dict[str, TestScores] = {}
    confirmed: tuple[Confirmed, ...] = ()
    choices: dict[str, str] = {}
    also_tested: tuple[Winner, ...] = ()
    missing: dict[str, str] = {}
    published: bool = False
    registered: RegisteredVersion | None = None
    error: str | None = None


def rank_trials(trials: Iterable[TrialRecord], metric: Metric) -> list[TrialRecord]:
    """Trials that have a score, best first; ties go to the smaller adapter, then to the earlier trial.

    Finalists come before the trials that were trained and judged on a part of the rows, whatever the scores: scores
    on different rows do not compare.
    """
    sign = -1.0 if higher_is_better(metric) else 1.0
    scored = [(trial.score, trial) for trial in trials if trial.score is not None]
    scored.sort(
        key=lambda pair: (
            pair[1].finalist_of is None,
            sign * pair[0],
            pair[1].trainable_parameters or 0,
            pair[1].number,
        )
    )
    return [trial for _, trial in scored]


def judged(evaluations: Iterable[EvaluationRecord]) -> tuple[float, ...]:
    """The running best at each rung, by what stops trials and guides the sampler."""
    return tuple(evaluation.judged for evaluation in evaluations if evaluation.judged is not None)


def running_best(scores: Iterable[float], metric: Metric) -> list[float]:
    """The best score up to each one."""
    return list(accumulate(scores, max if higher_is_better(metric) else min))


def trial_id(number: int) -> str:
    """A trial's name everywhere: `t` and its number."""
    return f"t{number:03d}"


def now() -> float:
    """Unix time in seconds."""
    return time.time()
