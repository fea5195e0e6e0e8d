"""How long a sweep will take, and the limits that end it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.search.limits import Limits, Reason
from lorasweep.tuning.search.stopping import plan_budget
from lorasweep.tuning.sweep.plan.plan import Estimate, SweepPlan
from lorasweep.tuning.sweep.winner.phases import Step, rung_on_all_rows, steps_after_trials

# The trials' processes start once, and import what they need.
START_SECONDS = 8.0
# Where nobody knows how many trials the time allows, the sampler begins as for so many.
UNKNOWN_TRIALS = 20


def with_estimate(plan: SweepPlan, earlier: SweepResult | None = None) -> SweepPlan:
    """The plan with its seconds; where only the time ends the sweep, its budget is that of the trials that fit.

    Args:
        earlier: the result before the sweep was extended.
    """
    search, training = plan.config.search, plan.config.training
    if plan.pace is None:
        return replace_trials(plan, UNKNOWN_TRIALS)
    rows = plan.part or plan.dataset
    rung = plan.pace.rung(len(rows.train), len(rows.validation), training)
    after = seconds_after(steps_after_trials(plan, earlier), rung)
    usual = usual_rungs(plan) * rung
    if search.max_minutes is not None:
        free = 60 * search.max_minutes - after - START_SECONDS
        fits = max(1, math.floor(free / usual * plan.resources.concurrency))
        plan = replace_trials(plan, fits)
        usual = usual_rungs(plan) * rung
    # In the end fewer trials run than could.
    trials = max(plan.budget.trials * usual / plan.resources.concurrency, training.rungs * rung)
    total = START_SECONDS + trials + after
    if search.max_minutes is not None:
        total = min(total, 60 * search.max_minutes)
    return replace(plan, estimate=Estimate(rung, training.rungs * rung, after, total))


def replace_trials(plan: SweepPlan, trials: int) -> SweepPlan:
    """The plan with the budget of so many trials, if no number was asked for."""
    search, training = plan.config.search, plan.config.training
    if not search.open:
        return plan
    fitting = search.model_copy(update={"trials": trials})
    return replace(plan, budget=plan_budget(fitting, training.epochs, training.rungs))


def usual_rungs(plan: SweepPlan) -> float:
    """Rungs that a trial takes on average, with those that are stopped early."""
    return plan.budget.rungs * plan.budget.epochs_expected / plan.budget.epochs_at_most


def seconds_after(steps: Sequence[Step], rung: float) -> float:
    """Seconds of the steps after the trials, of those of a rung."""
    return sum(step.rungs * rung + step.seconds for step in steps)


class RoundLimits(NamedTuple):
    """What ends the rounds of a sweep: the search, and after one on a part of the rows its finalists."""

    search: Limits
    finalists: Limits

    @property
    def reason(self) -> Reason | None:
        """Why the search ended before it had its number of trials, or None."""
        return self.search.reason


def make_limits(
    plan: SweepPlan, steps: Sequence[Step], spent: Callable[[], float], reason: Reason | None = None
) -> RoundLimits:
    """What ends the sweep's search before it has its number of trials, and its finalists before they are through.

    Args:
        steps: what comes after the search.
        spent: seconds of the whole sweep so far, over all of its runs.
        reason: why the search has ended already, in an earlier run.
    """
    search, rungs = plan.config.search, plan.budget.rungs
    pace = plan.estimate.rung if plan.estimate else None
    after_finalists = [step for step in steps if not step.trials]
    # Of a finalist's rung, in rungs of the search.
    longer = rung_on_all_rows(plan)
    limited = partial(Limits, metric=plan.config.training.metric, rungs=rungs, spent=spent)
    return RoundLimits(
        limited(
            search,
            usual=usual_rungs(plan),
            rows=len((plan.part or plan.dataset).validation),
            after=lambda rung: seconds_after(steps, rung),
            pace=pace,
            reason=reason,
        ),
        limited(
            search.model_copy(update={"patience": None}),
            # One that would not come halfway is not worth its time.
            usual=rungs / 2,
            rows=len(plan.dataset.validation),
            after=lambda rung: seconds_after(after_finalists, rung / longer),
            pace=None if pace is None else pace * longer,
        ),
    )
