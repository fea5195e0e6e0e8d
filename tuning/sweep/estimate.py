"""How long a sweep will take, and the limits that end it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from lorasweep.training.data.encoding import EncodedDataset
from lorasweep.training.loop.pace import Pace
from lorasweep.tuning.record.finalists import finalists
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.search.limits import Limits, Reason
from lorasweep.tuning.search.stopping import plan_budget
from lorasweep.tuning.sweep.phases import Step, full_rung, steps_after_trials
from lorasweep.tuning.sweep.plan import Estimate, SweepPlan

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
    rung = _rung(plan, plan.pace, plan.search_data)
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


def make_limits(
    plan: SweepPlan, steps: Sequence[Step], spent: Callable[[], float], reason: Reason | None = None
) -> Limits:
    """What ends the sweep's search before it has its number of trials.

    Args:
        steps: what comes after the trials.
        spent: seconds of the whole sweep so far, over all of its runs.
        reason: why the search has ended already, in an earlier run.
    """
    return Limits(
        plan.config.search,
        plan.config.training.metric,
        rungs=plan.budget.rungs,
        usual=usual_rungs(plan),
        rows=len(plan.search_data.validation),
        spent=spent,
        after=lambda rung: seconds_after(steps, rung),
        pace=plan.estimate.rung if plan.estimate else None,
        reason=reason,
    )


def make_last_limits(plan: SweepPlan, steps: Sequence[Step], spent: Callable[[], float]) -> Limits:
    """What ends the round of finalists early: the sweep's time alone. The first one always starts.

    Args:
        steps: what comes after the search's trials.
        spent: seconds of the whole sweep so far, over all of its runs.
    """
    after, rungs = [step for step in steps if not step.trials], full_rung(plan)
    return Limits(
        plan.config.search.model_copy(update={"patience": None}),
        plan.config.training.metric,
        rungs=plan.budget.rungs,
        usual=plan.budget.rungs,
        rows=len(plan.dataset.validation),
        spent=spent,
        # A step's work is told in rungs of the search.
        after=lambda rung: seconds_after(after, rung / rungs),
        pace=_rung(plan, plan.pace, plan.encoded) if plan.pace else None,
        kind=finalists,
    )


def _rung(plan: SweepPlan, pace: Pace, data: EncodedDataset) -> float:
    """Seconds of a rung on these rows."""
    return pace.rung(len(data.train), len(data.validation), plan.config.training)
