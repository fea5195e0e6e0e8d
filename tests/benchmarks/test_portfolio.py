"""Portfolios fitted to made-up curves."""

from __future__ import annotations

import numpy as np
import pytest
from made_curves import RATES, curves
from portfolio import WORST, draws, features, fit, greedy, losses_to_best


def test_the_first_is_the_best_alone_and_the_next_add_most_to_it() -> None:
    lost = np.array([[0.0, 0.5, 0.2, 0.9], [1.0, 0.0, 0.4, 0.9], [0.1, 1.0, 0.2, 0.0]])
    # Means alone: 0.37, 0.5, 0.27, 0.6. With candidate 2 the others leave 0.17, 0.13 and 0.2.
    assert greedy(lost, 2) == [2, 1]


def test_one_that_stands_first_anyway_is_made_up_for() -> None:
    lost = np.array([[0.0, 0.5, 0.2, 0.9], [1.0, 0.0, 0.4, 0.9], [0.1, 1.0, 0.2, 0.0]])
    # Beside candidate 0, which fails in the second case, candidate 1 leaves 0.03, and 2 leaves 0.17.
    assert greedy(lost, 3, first=[0]) == [0, 1, 3]


def test_no_candidate_is_chosen_twice() -> None:
    assert sorted(greedy(np.zeros((2, 4)), 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("measure", ["accuracy", "loss"])
@pytest.mark.parametrize("smooth", [True, False])
def test_sets_that_want_different_rates_get_both(measure: str, smooth: bool) -> None:
    sets = [curves(6e-4), curves(6e-4), curves(2.5e-3)]
    chosen = [RATES[place] for place in fit(sets, 2, measure=measure, smooth=smooth)]
    assert chosen[0] in (6e-4, 1.2e-3)
    assert max(chosen) >= 2e-3
    assert min(chosen) <= 1.2e-3


def test_a_useless_setting_loses_no_more_than_the_worst() -> None:
    lost = losses_to_best(curves(3e-4), "accuracy")
    assert lost.min() == 0
    assert lost.max() <= WORST


def test_noise_is_taken_away_from_a_lucky_setting() -> None:
    """A setting whose neighbours all lose much has been lucky."""
    points = np.linspace(0, 4, 30)[:, None]
    truth = 0.2 * (points[:, 0] - 2) ** 2
    observed = truth + np.random.default_rng(0).normal(0, 0.2, 30)
    smooth = draws(points, observed).mean(axis=0)
    assert np.abs(smooth - truth).mean() < 0.7 * np.abs(observed - truth).mean()


def test_distances_are_the_surrogates() -> None:
    first, second = curves()[0].settings, {**curves()[0].settings, "target_modules": "attention"}
    points = features([first, second])
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(0.75)
