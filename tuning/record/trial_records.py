"""JSON records of trials, and how trials are ranked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lorasweep.training.metrics import ALWAYS, Metric, higher_is_better
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.ran_on import RanOn

if TYPE_CHECKING:
    from lorasweep.training.loop.state import Evaluation

# On disk a trial runs until it ends. Readers see it as interrupted where its sweep does not run.
TrialState = Literal["running", "completed", "stopped", "failed", "interrupted"]

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
        parameters: of the whole classifier: base model, adapter and head.
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
    parameters: int | None = None
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
