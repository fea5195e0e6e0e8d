"""Axes of settings: numbers stand where they are, names without an order side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from lorasweep.search_spaces.domains import show
from lorasweep.tuning.report.plots.data import distinct, is_number

# Ticks of an axis of numbers, to which a marked range snaps.
STEPS = 40
# Ticks closer than this part of an axis would write over one another.
CLOSE = 0.09


@dataclass(frozen=True)
class Numbers:
    """What a setting of numbers may be.

    Attributes:
        choices: all that there are, the lowest first; none where any number of the range will do.
    """

    low: float
    high: float
    log: bool
    choices: tuple[float, ...] = ()

    def height(self, value: float) -> float:
        """Where a number stands on the axis, in [0, 1]."""
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """The choices with their texts, without a text where the one before stands too close."""
        ticks: list[tuple[float, str]] = []
        last = -math.inf
        for choice in self.choices:
            height = self.height(choice)
            ticks.append((choice, show(choice) if height - last >= CLOSE else ""))
            last = height if ticks[-1][1] else last
        return ticks


def numbers_of(kind: BaseDistribution) -> Numbers | None:
    """The numbers of a distribution, also of one whose choices are all numbers; None for names.

    Choices stand on a logarithmic axis where that sets them at least as evenly as a linear one: ranks double.
    """
    if not isinstance(kind, CategoricalDistribution):
        return Numbers(kind.low, kind.high, kind.log)
    if not all(is_number(choice) for choice in kind.choices):
        return None
    choices = tuple(sorted(set(kind.choices)))
    logs = [math.log(choice) for choice in choices] if choices[0] > 0 else []
    return Numbers(choices[0], choices[-1], bool(logs) and _evenness(logs) >= _evenness(choices), choices)


def _evenness(values: Sequence[float]) -> float:
    """The narrowest gap as a part of the widest, 1 where all are alike."""
    gaps = [high - low for low, high in itertools.pairwise(values)]
    return min(gaps) / max(gaps) + 1e-9 if gaps else 1.0


def axis_place(kind: BaseDistribution, value: Any, number: int) -> float:
    """Where a trial stands on the axis of `axis_of`.

    Args:
        number: the trial's; the golden ratio sets those with one name apart. A number is where it is.
    """
    if isinstance(kind, CategoricalDistribution) and numbers_of(kind) is None:
        return float(kind.choices.index(value) + (number * 0.618 % 1 - 0.5) * 0.36)
    return float(value)


def axis_of(kind: BaseDistribution) -> dict[str, Any]:
    """Plotly's axis for a setting: its type, range and ticks."""
    numbers = numbers_of(kind)
    if numbers is None:
        assert isinstance(kind, CategoricalDistribution)
        count, turn = len(kind.choices), {"tickangle": -30} if sum(map(len, kind.choices)) > 26 else {}
        return {
            "tickvals": list(range(count)),
            "ticktext": kind.choices,
            "range": [-0.6, count - 0.4],
            "showgrid": False,
            **turn,
        }
    if not numbers.log:
        edge = 0.05 * (numbers.high - numbers.low) or 1
        axis: dict[str, Any] = {"range": [numbers.low - edge, numbers.high + edge]}
        if numbers.choices:
            return axis | tick_texts(numbers.ticks())
        return axis | {"nticks": 6} | ({"tickformat": "d"} if isinstance(kind, IntDistribution) else {})
    low, high = math.log10(numbers.low), math.log10(numbers.high)
    edge = 0.05 * (high - low) or 1
    axis = {"type": "log", "range": [low - edge, high + edge]}
    if numbers.choices:
        return axis | tick_texts(numbers.ticks())
    # The more decades there are, the fewer ticks has each.
    steps = (1, 2, 5) if high - low < 1.3 else (1, 3) if high - low < 2.6 else (1,)
    decades = range(math.floor(low - edge), math.ceil(high + edge))
    ticks = [float(f"{step * 10.0**decade:.6g}") for decade in decades for step in steps]
    return axis | tick_texts([(tick, show(tick)) for tick in ticks])


def tick_texts(ticks: Sequence[tuple[float, str]]) -> dict[str, Any]:
    """Ticks as Plotly takes them, which tells them apart by their texts."""
    return {"tickvals": [place for place, _ in ticks], "ticktext": distinct([text for _, text in ticks])}


def height(kind: BaseDistribution, value: Any, spread: float) -> float:
    """Where a value stands on an axis of the parallel coordinates, in [0, 1].

    Args:
        spread: in (0, 1), where a line passes among those with the same name.
    """
    numbers = numbers_of(kind)
    if numbers is not None:
        return numbers.height(value)
    assert isinstance(kind, CategoricalDistribution)
    return float((kind.choices.index(value) + 0.5 + 0.5 * (spread - 0.5)) / len(kind.choices))


def height_ticks(kind: BaseDistribution) -> list[tuple[float, str]]:
    """Ticks of such an axis: (height in [0, 1], text)."""
    numbers = numbers_of(kind)
    if numbers is None:
        assert isinstance(kind, CategoricalDistribution)
        skip = math.ceil(len(kind.choices) / 12)
        return [(height(kind, choice, 0.5), choice) for choice in kind.choices[::skip]]
    if numbers.choices:
        return [(numbers.height(choice), text) for choice, text in numbers.ticks()]
    low, high = numbers.low, numbers.high
    values = np.geomspace(low, high, 3) if numbers.log else np.linspace(low, high, 3)
    if isinstance(kind, IntDistribution):
        values = np.unique(values.round())
    return ruler([(numbers.height(value), show(float(f"{value:.2g}"))) for value in values.tolist()])


def ruler(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """With nameless ticks in between: a marked range snaps to ticks, and would jump past trials."""
    named = dict(ticks)
    between = [n / STEPS for n in range(STEPS + 1) if min(abs(n / STEPS - place) for place in named) > 0.01]
    return sorted([*named.items(), *((place, "") for place in between)])
