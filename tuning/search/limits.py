"""When a search ends before it has its number of trials: its time is over, or its last trials brought nothing new."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Collection
from typing import Any, Literal

from ray import tune

from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.reported import ERROR, RUNG
from lorasweep.tuning.record.trial_records import TrialRecord

Reason = Literal["time", "patience"]


class Limits(tune.Stopper):
    """Says whether one more trial may start, and ends trials at a rung once their time is over.

    The searcher asks `may_start`; Ray Tune asks at each result whether a trial ends there, whatever its scheduler says.
    The first trial always starts and gets at least one rung, so that there is a winner.

    Args:
        settings: `max_minutes` are those of the whole sweep, `patience` its trials in a row.
        rungs: evaluations of a full trial.
        usual: rungs that a trial takes on average, with those that are stopped early.
        rows: validation rows, for the standard error of an accuracy where none is on record.
        spent: seconds of the whole sweep so far, over all of its runs.
        after: seconds of what comes after the trials, of the seconds of a rung.
        pace: seconds of a rung, as expected before there is one; None where nobody knows.
        reason: why the search has ended already, in an earlier run of the sweep.

    Attributes:
        reason: why no trial starts any more, or None.
        cut: Ray's ids of trials that ended because the time was over.
    """

    def __init__(
        self,
        settings: SearchSettings,
        metric: Metric,
        *,
        rungs: int,
        usual: float,
        rows: int,
        spent: Callable[[], float],
        after: Callable[[float], float],
        pace: float | None = None,
        reason: Reason | None = None,
    ) -> None:
        self._seconds = None if settings.max_minutes is None else 60 * settings.max_minutes
        self._patience = settings.patience
        self._metric: Metric = metric
        self._rungs, self._usual, self._rows = rungs, usual, rows
        self._spent, self._after, self._expected = spent, after, pace
        self._trials: Callable[[], Collection[TrialRecord]] = tuple
        self._when_over: Callable[[], None] = lambda: None
        self.reason = reason
        self.cut: set[str] = set()

    def follow(self, trials: Callable[[], Collection[TrialRecord]], when_over: Callable[[], None]) -> None:
        """Judge by these records.

        Args:
            trials: returns those of the search as they stand.
            when_over: called once, when a trial may no longer start: cores fall free from then on.
        """
        self._trials, self._when_over = trials, when_over

    def may_start(self) -> bool:
        """Whether one more trial may start; once it may not, none does."""
        if self.reason is None:
            trials = self._trials()
            if self._too_late(trials):
                self.reason = "time"
            elif (
                self._patience is not None
                and trials_without_gain(trials, self._metric, self._rows) >= self._patience
            ):
                self.reason = "patience"
            if self.reason is not None:
                self._when_over()
        return self.reason is None

    def time_is_over(self, seconds: float = 0.0) -> bool:
        """Whether work of so many seconds would not leave the time that is needed after the trials."""
        if self._seconds is None:
            return False
        pace = self._pace(self._trials())
        return self._spent() + seconds + self._after(pace or 0.0) > self._seconds

    def _too_late(self, trials: Collection[TrialRecord]) -> bool:
        if self._seconds is None or not any(trial.unfinished or trial.evaluations for trial in trials):
            return False
        return self.time_is_over(self._usual * (self._pace(trials) or 0.0))

    def _pace(self, trials: Collection[TrialRecord]) -> float | None:
        """Seconds of a rung: the median of those that there were, or what was expected."""
        seen = [seconds for trial in trials for seconds in rung_seconds(trial)]
        return statistics.median(seen) if seen else self._expected

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends at this rung: its next one would come too late."""
        if ERROR in result or "evaluation" not in result or int(result[RUNG]) >= self._rungs:
            return False
        if self.time_is_over(float(result["evaluation"]["seconds"]) / int(result[RUNG])):
            self.cut.add(trial_id)
        return trial_id in self.cut

    def stop_all(self) -> bool:
        """Whether Ray Tune's loop has to end: never, trials end at their rungs."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles it for its own restore; a sweep resumes from its records instead.
        return {}


def rung_seconds(trial: TrialRecord) -> list[float]:
    """What each rung of a trial took."""
    ends = [0.0, *(evaluation.seconds for evaluation in trial.evaluations)]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def trials_without_gain(trials: Collection[TrialRecord], metric: Metric, rows: int) -> int:
    """How many trials ended since the best score rose by more than its standard error.

    Trials without a score do not count: they say nothing about what others would reach.

    Args:
        rows: of the validation split.
    """
    ended = [trial for trial in trials if not trial.unfinished and trial.score is not None]
    ended.sort(key=lambda trial: (trial.ended or 0.0, trial.number))
    sign = 1.0 if higher_is_better(metric) else -1.0
    best: TrialRecord | None = None
    count = 0
    for trial in ended:
        # A best score that creeps up within the noise of one trial is a gain once it has left that noise.
        if best is None or sign * (_score(trial) - _score(best)) > standard_error(best, metric, rows):
            best, count = trial, 0
        else:
            count += 1
    return count


def standard_error(trial: TrialRecord, metric: Metric, rows: int) -> float:
    """Of a trial's score: the recorded one, that of a share of `rows` for an accuracy, else 0."""
    if trial.standard_error is not None:
        return trial.standard_error
    if metric == "accuracy" and trial.score is not None and rows:
        return math.sqrt(trial.score * (1 - trial.score) / rows)
    return 0.0


def _score(trial: TrialRecord) -> float:
    assert trial.score is not None
    return trial.score
