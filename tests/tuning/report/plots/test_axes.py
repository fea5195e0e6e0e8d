"""Where settings stand on their axes."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lorasweep.tuning.report.plots.axes import Numbers, axis_of, axis_place, height, height_ticks, numbers_of


@pytest.mark.parametrize(
    ("choices", "numbers"),
    [
        ((32, 4, 8, 16), Numbers(4, 32, True, (4, 8, 16, 32))),
        ((8, 16), Numbers(8, 16, True, (8, 16))),
        ((8, 16, 24), Numbers(8, 24, False, (8, 16, 24))),
        ((0.0, 0.01, 0.1), Numbers(0.0, 0.1, False, (0.0, 0.01, 0.1))),
        ((1e-5, 1e-4, 3e-4), Numbers(1e-5, 3e-4, True, (1e-5, 1e-4, 3e-4))),
        ((7,), Numbers(7, 7, True, (7,))),
        (("4", "8"), None),
        ((None, 4), None),
        ((True, False), None),
        ((1.0, float("inf")), None),
    ],
)
def test_choices_of_numbers_are_numbers(choices: Any, numbers: Numbers | None) -> None:
    """On the axis on which they are spread more evenly; names and anything else have no order."""
    assert numbers_of(CategoricalDistribution(choices)) == numbers


@pytest.mark.parametrize(
    ("kind", "middle"),
    [
        (CategoricalDistribution((4, 8, 16)), 0.5),
        (FloatDistribution(4, 16), 1 / 3),
        (IntDistribution(4, 16, log=True), 0.5),
    ],
)
def test_a_number_stands_where_it_is(kind: BaseDistribution, middle: float) -> None:
    """Whichever trial it is; the ends of what it can be are the ends of the axis."""
    assert {axis_place(kind, 8, number) for number in range(20)} == {8.0}
    assert [height(kind, 8, spread) for spread in (0.1, 0.9)] == pytest.approx([middle, middle])
    assert (height(kind, 4, 0.5), height(kind, 16, 0.5)) == (0, 1)


def test_names_are_set_apart_around_their_tick() -> None:
    """Each trial at a place of its own, nearer to its name than to the next."""
    kind = CategoricalDistribution(("attention", "all-linear"))
    places = [axis_place(kind, "all-linear", number) for number in range(20)]
    assert len(set(places)) == 20
    assert all(0.8 < place < 1.2 for place in places)
    assert axis_of(kind)["tickvals"] == [0, 1]


def test_ticks_that_would_touch_have_no_text() -> None:
    """They stay ticks, so that a marked range can end at them."""
    kind = CategoricalDistribution((0.0, 0.001, 0.5, 1.0))
    assert [text for _, text in height_ticks(kind)] == ["0", "", "0.5", "1"]
    assert axis_of(kind)["tickvals"] == [0.0, 0.001, 0.5, 1.0]
    assert axis_of(CategoricalDistribution((7,)))["range"][0] < 1
