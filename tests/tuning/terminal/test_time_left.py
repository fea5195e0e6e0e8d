"""The time left of a sweep: of its trials, and of what comes after them."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import pytest

from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.stopping import plan_budget
from lorasweep.tuning.terminal.time_left import TimeLeft, about

STEPS = [
    {"text": "confirming the best", "rungs": 12, "seconds": 0, "beside": False},
    {"text": "scoring", "rungs": 0.5, "seconds": 2, "beside": False},
    {"text": "publishing", "rungs": 0, "seconds": 6, "beside": False},
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its one entry is changed."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def summary_of(
    trials: int = 4, asha: bool = False, at_once: int = 2, steps: list[dict[str, Any]] = STEPS
) -> dict[str, Any]:
    """What is read of a plan's summary: full trials have 6 rungs."""
    budget = asdict(plan_budget(SearchSettings(trials=trials, asha=asha), 2, 6))
    return {"budget": budget, "resources": {"concurrency": at_once}, "steps": steps}


def trial(number: int, rungs: int, state: str = "running", pace: float = 10.0) -> TrialRecord:
    """A trial that took the same time for each of its rungs."""
    evaluations = [{"rung": rung, "seconds": rung * pace} for rung in range(1, rungs + 1)]
    return TrialRecord.model_validate(
        {"id": f"t{number:03d}", "number": number, "state": state, "evaluations": evaluations}
    )


def test_the_trials_by_what_their_rungs_took(clock: list[float]) -> None:
    """Shared by those that run at once; the last one alone; less with every second until the next rung."""
    left = TimeLeft(summary_of(steps=[]), [])
    assert left.seconds([trial(0, 0), trial(1, 0)]) is None
    assert left.share_done([]) == 0.0
    trials = [trial(0, 2), trial(1, 1)]
    assert left.seconds(trials) == (pytest.approx((4 + 5 + 2 * 6) * 10 / 2), 0)
    assert left.share_done(trials) == pytest.approx(3 / 24)
    clock[0] += 4
    assert left.seconds(trials) == (pytest.approx(101), 0)
    # A rung that takes longer than the others did says nothing about the rest.
    clock[0] += 1000
    assert left.seconds(trials) == (pytest.approx(95), 0)
    left.update(trials)
    ended = [trial(number, 6, "completed") for number in range(3)]
    assert left.seconds([*ended, trial(3, 2)]) == (pytest.approx(40), 0)
    assert left.seconds([*ended, trial(3, 6, "completed")]) == (0, 0)
    assert left.share_done([*ended, trial(3, 6, "completed")]) == 1


def test_a_sweep_that_goes_on(clock: list[float]) -> None:
    """It is told by the rungs of earlier runs until there are some of this one, which may be on another machine."""
    past = [trial(0, 6, "completed"), trial(1, 3)]
    left = TimeLeft(summary_of(trials=2, at_once=1, steps=[]), past)
    assert left.seconds(past) == (pytest.approx(30), 0)
    evaluations = [*past[1].evaluations, {"rung": 4, "seconds": 32.0}]
    fresh = TrialRecord.model_validate(past[1].model_dump() | {"evaluations": evaluations})
    assert left.seconds([past[0], fresh]) == (pytest.approx(2 * 2), 0)


def test_steps_after_the_trials_are_work_too(clock: list[float]) -> None:
    """From the first rung on, each until it has ended: no second before the end is nothing left."""
    left = TimeLeft(summary_of(), [])
    ended = [trial(number, 6, "completed") for number in range(4)]
    after = 12 * 10 + (5 + 2) + 6
    assert left.seconds(ended[:3])[1] == pytest.approx(after)  # type: ignore[index]
    assert left.seconds(ended) == (0, pytest.approx(after))
    assert left.share_done(ended) == pytest.approx(120 / (120 + after))
    left.phase("confirming the best 3 on other seeds: 0 of 2 done")
    clock[0] += 100
    assert left.seconds(ended) == (0, pytest.approx(after - 100))
    left.phase("something that is no step")
    assert left.seconds(ended) == (0, pytest.approx(after - 100))
    # A step that takes longer than expected.
    clock[0] += 900
    assert left.seconds(ended) == (0, pytest.approx(100 + 7 + 6))
    # It says how far it is.
    left.phase("confirming the best 3 on other seeds: 4 of 5 rungs done")
    assert left.seconds(ended) == (0, pytest.approx(250 + 7 + 6))
    clock[0] += 50
    assert left.seconds(ended) == (0, pytest.approx(200 + 7 + 6))
    shares = []
    for step in ("scoring t000", "publishing"):
        left.phase(step)
        for _ in range(20):
            clock[0] += 1
            assert sum(left.seconds(ended) or ()) > 0
            shares.append(left.share_done(ended))
            assert 0 < shares[-1] < 1


def test_a_step_beside_the_last_trials(clock: list[float]) -> None:
    """It is one more trial until the trials have ended; then what is left of it counts."""
    beside = {"text": "training the untuned settings", "rungs": 6, "seconds": 0, "beside": True}
    left = TimeLeft(summary_of(steps=[*STEPS[1:2], beside, *STEPS[2:]]), [])
    trials = [trial(0, 6, "completed"), trial(1, 6, "completed"), trial(2, 6, "completed"), trial(3, 4)]
    left.update(trials)
    assert left.seconds(trials) == (pytest.approx(60), pytest.approx(7 + 6))
    clock[0] += 20
    ended = [*trials[:3], trial(3, 6, "completed")]
    left.update(ended)
    assert left.seconds(ended) == (pytest.approx(60), pytest.approx(7 + 6))
    left.phase("scoring t000")
    assert left.seconds(ended) == (0, pytest.approx(7 + 40 + 6))
    clock[0] += 7
    left.phase("training the untuned settings for comparison")
    assert left.seconds(ended) == (0, pytest.approx(33 + 6))
    left.phase("publishing")
    assert left.seconds(ended) == (0, pytest.approx(6))


def test_a_step_before_the_last_trial_has_ended_counts_no_trials(clock: list[float]) -> None:
    """A sweep that breaks is published, and no trial follows."""
    left = TimeLeft(summary_of(), [])
    trials = [trial(0, 2), trial(1, 1, "failed")]
    left.phase("publishing")
    assert left.seconds(trials) == (0, pytest.approx(6))


@pytest.mark.parametrize("asha", [False, True])
def test_the_share_that_is_done_stays_between_none_and_all(asha: bool, clock: list[float]) -> None:
    """Fewer rungs are expected of each trial under ASHA, yet no share is above one and no time below zero."""
    left = TimeLeft(summary_of(trials=6, asha=asha), [])
    trials: dict[int, TrialRecord] = {}
    for number in range(6):
        for rungs in range(7):
            trials[number] = trial(number, rungs, "completed" if rungs == 6 else "running")
            assert 0 <= left.share_done(trials.values()) < 1
            assert min(left.seconds(trials.values()) or (0,)) >= 0


def limited(minutes: float, trials: int | None, spent: float = 0.0) -> dict[str, Any]:
    """A sweep whose time is limited, whose plan expects ten seconds a rung."""
    limits = {"max_minutes": minutes, "trials": trials}
    return summary_of() | {"limits": limits, "estimate": {"rung": 10.0}, "spent": spent}


def test_the_plans_pace_tells_before_the_first_rung(clock: list[float]) -> None:
    left = TimeLeft(summary_of(steps=[]) | {"estimate": {"rung": 5.0}}, [])
    assert left.seconds([trial(0, 0)]) == (pytest.approx(4 * 6 * 5 / 2), 0)
    assert left.seconds([trial(0, 1)]) == (pytest.approx((5 + 3 * 6) * 10 / 2), 0)
    assert TimeLeft(summary_of() | {"estimate": None}, []).seconds([trial(0, 0)]) is None


def test_no_more_time_is_left_than_the_limit_allows(clock: list[float]) -> None:
    """Steps of 133 s are kept back; trials have the rest, or less where they need less."""
    left = TimeLeft(limited(4, trials=4, spent=30), [])
    assert left.seconds([trial(0, 0)]) == (pytest.approx(240 - 30 - 133), 133)
    clock[0] += 60
    assert left.seconds([trial(0, 0)]) == (pytest.approx(17), 133)
    clock[0] += 60
    assert left.seconds([trial(0, 0)]) == (0, 133)
    much = TimeLeft(limited(60, trials=4), [])
    assert much.seconds([trial(0, 0)]) == (pytest.approx(120), 133)


def test_where_only_the_time_ends_a_sweep_all_of_it_is_left(clock: list[float]) -> None:
    left = TimeLeft(limited(60, trials=None), [])
    left.update([trial(number, 6, "completed") for number in range(4)])
    assert left.seconds([trial(number, 6, "completed") for number in range(40)]) == (3600 - 133, 133)
    assert 0 < left.share_done([trial(number, 6, "completed") for number in range(40)]) < 1
    left.phase("scoring t001")
    clock[0] += 3
    trials, after = left.seconds([trial(0, 6, "completed")]) or (0, 0)
    assert (trials, after) == (0, pytest.approx(7 - 3 + 6))


def test_an_estimate_in_words() -> None:
    assert about(80) == "about 1:20"
    assert about(0.2) == "a few seconds"


def test_finalists_are_a_step_that_tells_how_far_it_is(clock: list[float]) -> None:
    """Their rungs take longer, and say nothing about the pace of the search."""
    step = {"text": "training the finalists", "rungs": 24, "seconds": 0, "beside": False, "trials": True}
    summary = summary_of(steps=[step, *STEPS]) | {"part": {"best": 2, "finalists": 3}}
    left = TimeLeft(summary, [])
    ended = [
        trial(number, 6, "completed").model_copy(update={"score": 0.5 - number / 10}) for number in range(4)
    ]
    later = 120 + 5 + 2 + 6
    assert left.seconds(ended) == (0, 240 + later)
    left.phase("training the finalists on all rows")
    last = [
        trial(number, 3, pace=40).model_copy(
            update={"id": f"t00{number}-full", "finalist_of": f"t00{number}"}
        )
        for number in range(2)
    ]
    clock[0] += 120
    left.update([*ended, *last])
    # Six of twelve rungs are done after two minutes.
    assert left.seconds([*ended, *last]) == (0, pytest.approx(120 + later))
    assert left.share_done([*ended, *last]) == pytest.approx(1 / 2, abs=0.2)
    left.phase("confirming the best 2 on other seeds")
    assert left.seconds([*ended, *last]) == (0, pytest.approx(later))
