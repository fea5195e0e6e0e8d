"""The time that a sweep still takes, from what its trials' rungs took."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lorasweep.tuning.record.finalists import expected_finalists, finalists, searched_trials
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import duration

# How far a training is, in the text of its phase. Of several that run at once, the count of those done tells little.
PART = re.compile(r": (\d+) of ([1-9]\d*) rungs done")
# Below this, an estimate is no better than a word.
FEW_SECONDS = 5


class TimeLeft:
    """Estimates what is left of a sweep: its trials and the steps after them.

    Args:
        plan_summary: as `SweepListener.begin` gets it.
        past: records from earlier runs of the sweep.
    """

    def __init__(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        budget = plan_summary["budget"]
        self._trials, self._rungs = int(budget["trials"]), int(budget["rungs"])
        self._share = float(budget["epochs_expected"] / budget["epochs_at_most"])
        # Trials of a search on a part that become finalists, besides the known-good start.
        self._best = int((plan_summary.get("part") or {}).get("best", 0))
        self._metric = plan_summary.get("metric", "accuracy")
        self._at_once = int(plan_summary.get("resources", {}).get("concurrency", 1))
        self._steps: Sequence[Mapping[str, Any]] = plan_summary.get("steps", ())
        self._before = {trial.id: trial for trial in past}
        self._expected = (plan_summary.get("estimate") or {}).get("rung")
        limits = plan_summary.get("limits", {})
        self._open = limits.get("trials", 0) is None
        minutes = limits.get("max_minutes")
        # Its monotonic end, where the sweep has one.
        self._end = (
            None if minutes is None else time.monotonic() + 60 * minutes - plan_summary.get("spent", 0.0)
        )
        self._step: int | None = None
        # Of the present step: when it began, what part is done, and when it said so.
        self._begun = self._told = time.monotonic()
        self._part = 0.0
        # When the steps beside the last trials began.
        self._beside: float | None = None
        self._news = time.monotonic()

    def update(self, trials: Collection[TrialRecord]) -> None:
        """A trial started, was evaluated, or ended."""
        self._news = time.monotonic()
        self._finalists(trials)
        trials = searched_trials(trials)
        running = sum(trial.unfinished for trial in trials)
        if (
            self._beside is None
            and not self._open
            and not self._best
            and len(trials) >= self._trials
            and running < self._at_once
        ):
            self._beside = self._news

    def phase(self, text: str) -> None:
        """Something other than trials begins; a step after the trials, or not."""
        for number in range(self._step or 0, len(self._steps)):
            if text.startswith(self._steps[number]["text"]):
                if number != self._step:
                    self._step, self._begun, self._part = number, time.monotonic(), 0.0
                if (part := PART.search(text)) and int(part[1]):
                    self._part, self._told = int(part[1]) / int(part[2]), time.monotonic()
                return

    def seconds(self, trials: Collection[TrialRecord]) -> tuple[float, float] | None:
        """Seconds left of the trials and of the steps after them; None while nobody knows what a rung takes."""
        trials = searched_trials(trials)
        pace = self._pace(trials)
        if pace is None:
            return None
        after = self._steps_left(pace)
        # The steps also begin early: where the sweep ends before its last trial.
        if self._step is not None:
            return 0.0, after
        if self._end is None:
            return self._trials_left(trials, pace), after
        limit = max(self._end - time.monotonic() - after, 0.0)
        return limit if self._open else min(limit, self._trials_left(trials, pace)), after

    def share_done(self, trials: Collection[TrialRecord]) -> float:
        """Share of the whole work that is done, in [0, 1]."""
        trials = searched_trials(trials)
        pace = self._pace(trials)
        left = self.seconds(trials)
        if pace is None or left is None:
            return 0.0
        done = sum(len(trial.evaluations) for trial in trials) * pace / self._at_once
        done += sum(self._work(step, pace) for step in self._steps if not self._with_trials(step)) - left[1]
        return done / (done + sum(left)) if done > 0 else 0.0

    def _finalists(self, trials: Collection[TrialRecord]) -> None:
        """How far the finalists are: unlike other steps, they are trials that tell of each rung themselves."""
        if self._step is None or not self._steps[self._step].get("trials"):
            return
        last, expected = finalists(trials), expected_finalists(list(trials), self._metric, self._best)
        rungs = sum(trial.reached for trial in last)
        before = [self._before.get(trial.id) for trial in last]
        done = rungs - sum(trial.reached for trial in before if trial is not None)
        if done:
            # Those that have not started yet are not on record.
            left = max(len(expected) * self._rungs - rungs, 0)
            self._part, self._told = done / (done + left), self._news

    def _pace(self, trials: Collection[TrialRecord]) -> float | None:
        """Seconds of a rung: of those of this run; before it has any of earlier ones, or as the plan expects."""
        now = [_spent(trial) for trial in trials]
        before = [_spent(self._before.get(trial.id)) for trial in trials]
        fresh = [(rungs - r, seconds - s) for (rungs, seconds), (r, s) in zip(now, before, strict=True)]
        for spent in (fresh, now):
            rungs, seconds = sum(r for r, _ in spent), sum(s for _, s in spent)
            if rungs > 0 and seconds > 0:
                return seconds / rungs
        return self._expected

    def _trials_left(self, trials: Collection[TrialRecord], pace: float) -> float:
        expected = self._rungs * self._share
        running = [trial.reached for trial in trials if trial.unfinished]
        # A running trial that is past the average most likely runs to the end.
        rest = [max(expected - done, 0.0) or float(self._rungs - done) for done in running]
        rest += [expected] * (self._trials - len(trials))
        rest += [self._work(step, pace) / pace for step in self._steps if self._with_trials(step)]
        # In the end fewer trials run than could.
        left = pace * max(sum(rest) / self._at_once, *rest, 0.0)
        # Part of the present rungs is done: count down until the next one is reported.
        return max(left - min(time.monotonic() - self._news, pace), left / 10)

    def _steps_left(self, pace: float) -> float:
        if self._step is None:
            return sum(self._work(step, pace) for step in self._steps if not self._with_trials(step))
        begun = 0.0 if self._beside is None else time.monotonic() - self._beside
        work = [self._work(step, pace) - begun * bool(step["beside"]) for step in self._steps]
        work = [max(seconds, 0.0) for seconds in work]
        elapsed, rest = time.monotonic() - self._begun, work[self._step]
        least = elapsed / 10
        if self._part:
            # What it took so far tells more than the trials do.
            rest = (self._told - self._begun) * (1 / self._part - 1)
            elapsed, least = time.monotonic() - self._told, rest / 10
        # A step that takes longer than expected is not done.
        return sum(work[self._step + 1 :]) + max(rest - elapsed, least)

    def _with_trials(self, step: Mapping[str, Any]) -> bool:
        """Whether a step is still one more trial, as it were."""
        return self._step is None and bool(step["beside"]) and not self._best

    @staticmethod
    def _work(step: Mapping[str, Any], pace: float) -> float:
        return float(step["rungs"] * pace + step["seconds"])


def about(seconds: float) -> str:
    """An estimate in words: about 1:20, a few seconds."""
    return f"about {duration(seconds)}" if seconds >= FEW_SECONDS else "a few seconds"


def _spent(trial: TrialRecord | None) -> tuple[int, float]:
    """A trial's rungs, and their seconds."""
    if trial is None or not trial.evaluations:
        return 0, 0.0
    return len(trial.evaluations), trial.evaluations[-1].seconds
