"""What ends a search: its time by a clock of the test's own, and trials that bring nothing new."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.config import OPEN_TRIALS, SearchSettings
from lorasweep.tuning.record.reported import ERROR, RUNG
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.limits import Limits, Reason, rung_seconds, standard_error, trials_without_gain

RUNGS = 6


def trial(number: int, rungs: int, state: str = "running", pace: float = 10.0, **more: Any) -> TrialRecord:
    """A trial that took the same time for each of its rungs."""
    evaluations = [{"rung": rung, "seconds": rung * pace} for rung in range(1, rungs + 1)]
    entries = {"id": f"t{number:03d}", "number": number, "state": state, "evaluations": evaluations}
    return TrialRecord.model_validate(entries | more)


class Search:
    """A search with a clock that stands still, and the records of its trials."""

    def __init__(
        self,
        minutes: float | None = None,
        patience: int | None = None,
        pace: float | None = 10.0,
        reason: Reason | None = None,
    ) -> None:
        self.now = 0.0
        self.ended = 0
        self.trials: dict[int, TrialRecord] = {}
        self.limits = Limits(
            SearchSettings(max_minutes=minutes, patience=patience),
            "accuracy",
            rungs=RUNGS,
            usual=2.0,
            rows=100,
            spent=lambda: self.now,
            after=lambda rung: 20 + 2 * rung,
            pace=pace,
            reason=reason,
        )
        self.limits.follow(self.trials.values, self._end)

    def _end(self) -> None:
        self.ended += 1

    def has(self, *trials: TrialRecord) -> None:
        self.trials |= {record.number: record for record in trials}

    def ends(self, name: str, rung: int, pace: float = 10.0) -> bool:
        return self.limits(name, {RUNG: rung, "evaluation": {"seconds": rung * pace}})


def test_without_limits_nothing_ends() -> None:
    search = Search()
    search.has(*(trial(number, 1, "stopped", score=0.5) for number in range(50)))
    search.now = 1e9
    assert search.limits.may_start()
    assert not search.ends("ray", 1)
    assert not search.limits.stop_all()
    assert search.limits.reason is None


def test_no_trial_starts_that_the_time_left_does_not_allow() -> None:
    """Of 180 s, 40 are kept back for what follows, and an average trial takes two rungs of 10 s."""
    search = Search(minutes=3)
    assert search.limits.may_start()
    search.has(trial(0, 2))
    search.now = 120
    assert search.limits.may_start()
    search.now = 120.5
    assert not search.limits.may_start()
    assert (search.limits.reason, search.ended) == ("time", 1)
    # It stays so, whatever a rung takes from then on.
    search.now = 0
    assert not search.limits.may_start()
    assert search.ended == 1


def test_the_pace_is_the_median_of_what_rungs_took() -> None:
    """The plan had expected a rung of 10 s; one trial that is slow does not count for all."""
    search = Search(minutes=3)
    search.has(trial(0, 3, pace=2), trial(1, 2, pace=50))
    search.now = 180 - 24 - 4
    assert search.limits.may_start()
    search.now += 0.5
    assert not search.limits.may_start()
    assert rung_seconds(trial(0, 3, pace=2)) == [2, 2, 2]


def test_where_nobody_knows_the_pace_trials_start_until_the_time_is_over() -> None:
    search = Search(minutes=3, pace=None)
    search.has(trial(0, 0))
    search.now = 159
    assert search.limits.may_start()
    search.now = 161
    assert not search.limits.may_start()


@pytest.mark.parametrize("ended", [0, 2])
def test_the_first_trial_always_starts(ended: int) -> None:
    """Also where the first ones failed: without a rung there would be no winner."""
    search = Search(minutes=0.01)
    search.has(*(trial(number, 0, "failed") for number in range(ended)))
    search.now = 100
    assert search.limits.may_start()
    search.has(trial(ended, 0))
    assert not search.limits.may_start()


def test_a_trial_ends_where_its_next_rung_would_come_too_late() -> None:
    """By its own pace. A trial with all its rungs, and one that failed, end by themselves."""
    search = Search(minutes=3)
    search.now = 129
    assert not search.ends("fast", 1)
    assert search.ends("slow", 1, pace=20)
    search.now = 131
    assert search.ends("fast", 2)
    assert search.limits.cut == {"slow", "fast"}
    assert not search.ends("whole", RUNGS)
    assert not search.limits("failed", {RUNG: 0, ERROR: "loss is not finite"})
    assert search.limits.cut == {"slow", "fast"}


def test_a_search_that_has_ended_stays_so() -> None:
    """Its steps after the trials may be done again, which takes less time than was kept back."""
    search = Search(minutes=3, reason="time")
    assert not search.limits.may_start()
    assert search.limits.reason == "time"


def scored(*scores: float | None, error: float | None = None) -> list[TrialRecord]:
    """Trials in the order in which they ended, which is not that of their numbers."""
    return [
        trial(
            len(scores) - place,
            0,
            "failed" if score is None else "stopped",
            score=score,
            ended=float(place),
            best_rung=1,
            evaluations=[{"rung": 1, "standard_error": error}],
        )
        for place, score in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("scores", "error", "metric", "count"),
    [
        ([], None, "accuracy", 0),
        ([0.5], None, "accuracy", 0),
        # Of 100 rows, an accuracy of 50 % has a standard error of 5 points.
        ([0.5, 0.54, 0.2], None, "accuracy", 2),
        ([0.5, 0.54, 0.56], None, "accuracy", 0),
        # Slowly out of the noise of the first.
        ([0.5, 0.53, 0.545, 0.551, 0.5], None, "accuracy", 1),
        ([0.5, 0.54], 0.01, "accuracy", 0),
        ([0.5, 0.54], 0.1, "accuracy", 1),
        # Lower is better; and without a standard error any gain is one.
        ([0.5, 0.499, 0.51], None, "loss", 1),
        ([0.5, 0.499, 0.51], 0.1, "loss", 2),
        ([0.5, 0.501], None, "macro_f1", 0),
        # A trial that failed says nothing.
        ([0.5, None, 0.2, None], None, "accuracy", 1),
        ([1.0, 1.0], None, "accuracy", 1),
    ],
)
def test_trials_that_bring_nothing_beyond_noise(
    scores: list[float | None], error: float | None, metric: Metric, count: int
) -> None:
    running = trial(99, 3, score=0.99)
    assert trials_without_gain([running, *scored(*scores, error=error)], metric, 100) == count


def test_the_standard_error_is_that_of_the_best_evaluation() -> None:
    evaluations = [{"rung": 1, "standard_error": 0.3}, {"rung": 2, "standard_error": 0.2}]
    assert standard_error(trial(0, 0, evaluations=evaluations, best_rung=2), "accuracy", 100) == 0.2


def test_patience_ends_the_search_and_no_trial() -> None:
    search = Search(patience=2)
    search.has(*scored(0.5, 0.4))
    assert search.limits.may_start()
    search.has(trial(7, 1, "stopped", score=0.5, ended=9.0))
    assert not search.limits.may_start()
    assert (search.limits.reason, search.ended) == ("patience", 1)
    assert not search.ends("ray", 1)


def test_ray_can_pickle_it() -> None:
    """With all that hangs on it: a stopwatch has a thread."""
    assert pickle.loads(pickle.dumps(Search(minutes=3).limits.may_start))


def test_minutes_stand_in_for_a_number_of_trials() -> None:
    """Unless there is one; and a configuration that was written down reads the same."""
    alone = SearchSettings(max_minutes=3)
    assert (alone.trials, alone.open) == (OPEN_TRIALS, True)
    both = SearchSettings(max_minutes=3, trials=5)
    assert (both.trials, both.open) == (5, False)
    assert SearchSettings(patience=3).trials == 20
    assert SearchSettings.model_validate(alone.model_dump()) == alone
