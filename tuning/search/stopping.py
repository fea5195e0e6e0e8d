"""ASHA that survives a restore, and the budget it is expected to need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.folder import SCORE
from lorasweep.tuning.record.reported import RUNG


class PatientBracket(_Bracket):
    """A bracket whose first trials at a rung go on, until there are enough to tell the best 1/n of them.

    Ray's own stops the second trial at a rung by the first one's score alone: a coin toss between two
    settings that are nearly equal there, and the known-good start is one of the two.
    """

    def cutoff(self, recorded: dict[str, float]) -> float | None:
        """The score below which the next trial stops, or None while too few have come."""
        # The trial that is judged counts too, and is not among the recorded yet.
        return super().cutoff(recorded) if len(recorded) + 1 >= self.rf else None


class RecallingASHA(AsyncHyperBandScheduler):
    """ASHA that can be told of rungs which trials reached in an earlier run of the sweep.

    Ray's own restore brings back the searcher but loses ASHA's rungs. Here they are rebuilt from the trials'
    records, so a resumed sweep stops trials by the same cut-offs as one that was never interrupted.
    """

    def __init__(
        self, *, max_t: int, grace_period: int, reduction_factor: int, metric: str, mode: str, time_attr: str
    ) -> None:
        super().__init__(
            max_t=max_t,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            metric=metric,
            mode=mode,
            time_attr=time_attr,
        )
        self._brackets = [PatientBracket(grace_period, max_t, reduction_factor, 0)]

    def recall(self, key: str, scores: Sequence[float]) -> None:
        """Enter a trial's scores, one a rung from 1, without deciding anything about it."""
        for rung, score in enumerate(scores, start=1):
            self._brackets[0].on_result(_Named(key), rung, self._metric_op * score)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Enter what a trial that goes on had reached before."""
        super().on_trial_add(tune_controller, trial)
        self.recall(trial.trial_id, trial.config.get("scores", ()))


@dataclass(frozen=True)
class _Named:
    """All that ASHA's bracket asks of a trial."""

    trial_id: str


def make_scheduler(
    settings: SearchSettings, metric: Metric, rungs: int, past: Mapping[str, Sequence[float]] | None = None
) -> TrialScheduler:
    """ASHA over a trial's rungs, or first in, first out where early stopping is off.

    Asynchronous successive halving: Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020.

    Args:
        past: running-best scores at each rung of the trials that ended in earlier runs of the sweep.
    """
    if not settings.asha or rungs <= settings.grace_rungs:
        return FIFOScheduler()
    scheduler = RecallingASHA(
        time_attr=RUNG,
        metric=SCORE,
        mode="max" if higher_is_better(metric) else "min",
        max_t=rungs,
        grace_period=settings.grace_rungs,
        reduction_factor=settings.reduction_factor,
    )
    for key, scores in (past or {}).items():
        scheduler.recall(key, scores)
    return scheduler


def halving_rungs(settings: SearchSettings, rungs: int) -> list[int]:
    """The rungs at which ASHA may stop a trial: grace · factor^k, before the last rung."""
    if not settings.asha:
        return []
    found, rung = [], settings.grace_rungs
    while rung < rungs:
        found.append(rung)
        rung *= settings.reduction_factor
    return found


@dataclass(frozen=True)
class Budget:
    """What a sweep may cost, in epochs of training."""

    trials: int
    rungs: int
    halving: tuple[int, ...]
    epochs_at_most: float
    epochs_expected: float


def plan_budget(settings: SearchSettings, epochs: int, rungs: int) -> Budget:
    """Epochs at most, and as expected when at each halving 1 / reduction_factor of the trials go on.

    The expectation is that of synchronous halving. Asynchronous halving decides on what it has seen so far,
    so early trials pass more easily and the true figure is somewhat higher.
    """
    halving = halving_rungs(settings, rungs)
    epochs_per_rung = epochs / rungs
    alive, spent, last = 1.0, 0.0, 0
    for rung in halving:
        spent += alive * (rung - last)
        alive, last = alive / settings.reduction_factor, rung
    spent += alive * (rungs - last)
    # At least one trial runs to the end.
    expected = max(
        spent * settings.trials, float(rungs) + (settings.trials - 1) * min(rungs, *(halving or [rungs]))
    )
    at_most = float(epochs * settings.trials)
    return Budget(settings.trials, rungs, tuple(halving), at_most, min(at_most, expected * epochs_per_rung))


def format_epochs(epochs: float) -> str:
    """Epochs without needless decimals."""
    return f"{epochs:.0f}" if math.isclose(epochs, round(epochs)) or epochs >= 20 else f"{epochs:.1f}"
