"""Stopping rules: which weak trials end early, and what a sweep is then expected to cost.

To add a rule, add one entry to `RULES` and a setting that selects it to `stopping_rule`. The plan, displays, report,
model card and MLflow take their words and numbers from the entry. Importing this module does not import Ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.config import SearchSettings

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

Past = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class StoppingRule:
    """A way to stop weak trials.

    Attributes:
        label: its name in texts, as in "stopped by ASHA".
        rungs: the rungs at which it may stop a trial, below the last one; of settings and a full trial's rungs.
        keep: the share of trials that it keeps at each of these rungs.
        scheduler: Ray's scheduler, of settings, objective, a full trial's rungs, and the running best of the objective
            at each rung of trials that ended in earlier runs of the sweep.
    """

    label: str
    rungs: Callable[[SearchSettings, int], list[int]]
    keep: Callable[[SearchSettings], Fraction]
    scheduler: Callable[[SearchSettings, Metric, int, Past], TrialScheduler]

    def text(self, settings: SearchSettings, halving: Sequence[int] | None) -> str:
        """What it does in one sweep.

        Args:
            halving: rungs at which it may stop trials; None if they are not on record.
        """
        if not halving:
            return self.label if halving is None else RULES["none"].label
        rungs = ("rung " if len(halving) == 1 else "rungs ") + ", ".join(str(rung) for rung in halving)
        return f"{self.label}: keep the best {self.keep(settings)} after {rungs}"


def _asha(settings: SearchSettings, objective: Metric, rungs: int, past: Past) -> TrialScheduler:
    from lorasweep.tuning.search.asha import make_asha

    return make_asha(settings, objective, rungs, past)


def _asha_rungs(settings: SearchSettings, rungs: int) -> list[int]:
    """Grace · factor^k."""
    halving, rung = [], settings.grace(rungs)
    while rung < rungs:
        halving.append(rung)
        rung *= settings.reduction_factor
    return halving


def _first_in_first_out(*_: object) -> TrialScheduler:
    from ray.tune.schedulers import FIFOScheduler

    return FIFOScheduler()


RULES = {
    "asha": StoppingRule("ASHA", _asha_rungs, lambda settings: Fraction(1, settings.reduction_factor), _asha),
    "none": StoppingRule("no early stopping", lambda *_: [], lambda _: Fraction(1), _first_in_first_out),
}


def stopping_rule(settings: SearchSettings) -> StoppingRule:
    """The rule that a sweep's settings select."""
    return RULES["asha" if settings.asha else "none"]


def make_scheduler(
    settings: SearchSettings, objective: Metric, rungs: int, past: Past | None = None
) -> TrialScheduler:
    """The scheduler of the sweep's stopping rule; first in, first out if no rung is left to stop at."""
    rule = stopping_rule(settings) if halving_rungs(settings, rungs) else RULES["none"]
    return rule.scheduler(settings, objective, rungs, past or {})


def halving_rungs(settings: SearchSettings, rungs: int) -> list[int]:
    """The rungs at which trials may be stopped, below the last one."""
    return stopping_rule(settings).rungs(settings, rungs)


@dataclass(frozen=True)
class Budget:
    """What a sweep may cost, in epochs of training."""

    trials: int
    rungs: int
    halving: tuple[int, ...]
    epochs_at_most: float
    epochs_expected: float


def plan_budget(settings: SearchSettings, epochs: int, rungs: int) -> Budget:
    """Epochs at most, and the epochs expected if the rule keeps its share of trials at each rung.

    The expectation is that of synchronous halving. Asynchronous rules judge by the trials seen so far, so early
    trials pass more easily and the true figure is somewhat higher.
    """
    halving, keep = halving_rungs(settings, rungs), float(stopping_rule(settings).keep(settings))
    alive, spent, last = 1.0, 0.0, 0
    for rung in halving:
        spent += alive * (rung - last)
        alive, last = alive * keep, rung
    spent += alive * (rungs - last)
    # At least one trial runs to the end, and all others to the first rung at which they may stop.
    least = float(rungs) + (settings.trials - 1) * min([rungs, *halving])
    expected = max(spent * settings.trials, least) * epochs / rungs
    at_most = float(epochs * settings.trials)
    return Budget(settings.trials, rungs, tuple(halving), at_most, min(at_most, expected))


def format_epochs(epochs: float) -> str:
    """Epochs without needless decimals."""
    return f"{epochs:.0f}" if math.isclose(epochs, round(epochs)) or epochs >= 20 else f"{epochs:.1f}"
