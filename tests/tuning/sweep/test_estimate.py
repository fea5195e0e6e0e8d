"""How long a sweep will take, by the pace of a few steps, and how many trials fit into a given time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from lorasweep.training.loop.pace import Pace
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.stopping import Budget, plan_budget
from lorasweep.tuning.sweep.estimate import START_SECONDS, UNKNOWN_TRIALS, make_limits, with_estimate
from lorasweep.tuning.sweep.plan.plan import Estimate
from lorasweep.tuning.sweep.winner.phases import Step

AFTER = [Step("scoring", rungs=0.5, seconds=3), Step("publishing", seconds=4)]


@dataclass(frozen=True)
class Planned:
    """What is read of a plan: full trials of six rungs, two at once."""

    config: SweepConfig
    budget: Budget
    dataset: Any
    resources: Any
    pace: Pace | None
    part: Any = None
    estimate: Estimate | None = None


def plan_of(asha: bool = False, **search: Any) -> Any:
    entries = {"name": "news", "training": {"epochs": 2, "evaluations_per_epoch": 3}}
    config = SweepConfig.model_validate(entries | {"search": search | {"asha": asha}})
    return Planned(
        config,
        plan_budget(config.search, 2, 6),
        dataset=SimpleNamespace(train="x" * 480, validation="x" * 40),
        resources=SimpleNamespace(concurrency=2),
        pace=Pace(trained=0.06, predicted=0.01),
    )


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorasweep.tuning.sweep.estimate.steps_after_trials", lambda plan, earlier: AFTER)


def test_seconds_of_trials_and_of_what_follows() -> None:
    """A rung trains 160 rows and predicts 40."""
    estimate = with_estimate(plan_of(trials=8)).estimate
    assert estimate is not None
    assert (estimate.rung, estimate.trial, estimate.after) == pytest.approx((10, 60, 5 + 7))
    assert estimate.total == pytest.approx(START_SECONDS + 8 * 60 / 2 + 12)
    # One trial is not done sooner because there is room for another.
    one = with_estimate(plan_of(trials=1)).estimate
    assert one is not None
    assert one.total == pytest.approx(START_SECONDS + 60 + 12)


def test_stopped_trials_take_less() -> None:
    plan = plan_of(asha=True, trials=8)
    estimate = with_estimate(plan).estimate
    assert estimate is not None
    share = plan.budget.epochs_expected / plan.budget.epochs_at_most
    assert share < 0.6
    assert estimate.total == pytest.approx(START_SECONDS + 8 * 60 * share / 2 + 12)


@pytest.mark.parametrize(("minutes", "trials"), [(3, 5), (60, 119), (0.1, 1)])
def test_a_given_time_holds_so_many_trials(minutes: float, trials: int) -> None:
    plan = with_estimate(plan_of(max_minutes=minutes))
    assert plan.budget.trials == trials
    assert plan.budget.epochs_at_most == 2 * trials
    assert plan.estimate is not None
    assert plan.estimate.total <= 60 * minutes


def test_a_number_that_was_asked_for_stays() -> None:
    plan = with_estimate(plan_of(max_minutes=3, trials=50))
    assert plan.budget.trials == 50
    assert plan.estimate is not None
    assert plan.estimate.total == 180


def test_where_nobody_knows_the_pace() -> None:
    """The sampler still has to begin somehow."""
    plan = with_estimate(replace(plan_of(max_minutes=3), pace=None))
    assert (plan.estimate, plan.budget.trials) == (None, UNKNOWN_TRIALS)
    assert with_estimate(replace(plan_of(trials=7), pace=None)).budget.trials == 7


def test_the_limits_keep_back_what_the_steps_take() -> None:
    plan, now = with_estimate(plan_of(max_minutes=3)), [0.0]
    limits = make_limits(plan, AFTER, lambda: now[0]).search
    now[0] = 180 - 12
    assert not limits.time_is_over()
    now[0] += 1
    assert limits.time_is_over()
    assert make_limits(plan, AFTER, lambda: 0.0, "patience").reason == "patience"


def test_a_search_on_a_part_keeps_back_the_time_of_its_finalists() -> None:
    """A rung of the search is 48 of 480 rows, and 4 of 40: a tenth of one on all rows, which takes 10 s."""
    part = SimpleNamespace(train="x" * 48, validation="x" * 4)
    plan = with_estimate(replace(plan_of(max_minutes=3, patience=1), part=part))
    assert plan.estimate is not None
    assert plan.estimate.rung == pytest.approx(1)
    steps = [Step("finalists", rungs=60, seconds=8, trials=True), Step("publishing", rungs=10, seconds=2)]
    now = [180.0 - 80]
    search, finalists = make_limits(plan, steps, lambda: now[0])
    assert not search.time_is_over()
    now[0] += 0.5
    assert search.time_is_over()
    assert not finalists.time_is_over()
    now[0] = 180 - 12
    assert not finalists.time_is_over()
    now[0] += 0.5
    assert finalists.time_is_over()
    # One that would not come halfway does not start; and none is left out because it brings nothing new.
    running = TrialRecord(id="t000-full", number=0, finalist_of="t000")
    finalists.follow(lambda: [running], lambda: None)
    now[0] = 180 - 12 - 30
    assert finalists.may_start()
    now[0] += 0.5
    assert not finalists.may_start()
    assert finalists.reason == "time"
