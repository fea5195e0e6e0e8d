"""ASHA as Ray Tune runs it, with rungs that survive a resumed sweep.

Asynchronous successive halving: Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.reported import OBJECTIVE, RUNG


class PatientBracket(_Bracket):
    """A bracket that stops nobody at a rung until enough trials have reached it to name the best 1/n.

    Ray's own bracket judges the second trial at a rung by the first one's score alone: a coin toss between two
    nearly equal trials, one of which is the space's known-good start.
    """

    def cutoff(self, recorded: dict[str, float]) -> float | None:
        """The score below which the next trial stops, or None while too few trials were recorded."""
        # The judged trial counts, too, and is not recorded yet.
        return super().cutoff(recorded) if len(recorded) + 1 >= self.rf else None


class RecallingASHA(AsyncHyperBandScheduler):
    """ASHA that can be given the scores of trials from earlier runs, and that never stops the known-good start.

    Ray's restore brings back the searcher but loses ASHA's rungs. Rebuilt from the trials' records, a resumed
    sweep stops trials by the same cut-offs as an uninterrupted one.

    The known-good start, the first of the space's starts, is what the others are compared with. Its scores count at
    the rungs, but it trains to its end.
    """

    def __init__(self, *, max_t: int, grace_period: int, reduction_factor: int, **arguments: Any) -> None:
        super().__init__(
            max_t=max_t, grace_period=grace_period, reduction_factor=reduction_factor, **arguments
        )
        self._brackets = [PatientBracket(grace_period, max_t, reduction_factor, 0)]

    def recall(self, key: str, scores: Sequence[float]) -> None:
        """Record a trial's scores, one per rung from 1, without judging the trial."""
        for rung, score in enumerate(scores, start=1):
            # The bracket reads nothing but the id of a trial.
            self._brackets[0].on_result(SimpleNamespace(trial_id=key), rung, self._metric_op * score)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Record the score, and decide whether the trial goes on."""
        action = str(super().on_trial_result(tune_controller, trial, result))
        if action == TrialScheduler.STOP and trial.config.get("start") == 1 and result[RUNG] < self._max_t:
            self._num_stopped -= 1
            return str(TrialScheduler.CONTINUE)
        return action

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Recall the rungs that a continued trial reached in an earlier run."""
        super().on_trial_add(tune_controller, trial)
        self.recall(trial.trial_id, trial.config.get("scores", ()))


def make_asha(
    settings: SearchSettings, objective: Metric, rungs: int, past: Mapping[str, Sequence[float]]
) -> TrialScheduler:
    """ASHA over a trial's rungs.

    Args:
        objective: the score that it judges trials by.
        past: trial → running best of the objective at each rung, of trials that ended in earlier runs of the sweep.
    """
    scheduler = RecallingASHA(
        time_attr=RUNG,
        metric=OBJECTIVE,
        mode="max" if higher_is_better(objective) else "min",
        max_t=rungs,
        grace_period=settings.grace(rungs),
        reduction_factor=settings.reduction_factor,
    )
    for key, scores in past.items():
        scheduler.recall(key, scores)
    return scheduler
