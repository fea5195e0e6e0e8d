"""Thresholds that are chosen on some rows: as good as the best of all, and not moved by rounding."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from sklearn import metrics as reference

from lorasweep.training.scores.thresholds import best_threshold, decide
from lorasweep.training.threshold_rules import RULES, Threshold, fixed_threshold

FUNCTIONS = {
    "f1": reference.f1_score,
    "balanced_accuracy": reference.balanced_accuracy_score,
    "mcc": reference.matthews_corrcoef,
}


def drawn(seed: int, rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(rows) < 0.2
    shares = 1 / (1 + np.exp(-(random.normal(size=rows) + 1.5 * positive - 2)))
    return shares.round(2), positive  # with ties


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rule", RULES)
def test_no_threshold_is_better(rule: str, seed: int) -> None:
    shares, positive = drawn(seed)
    found = best_threshold(shares, positive, rule)
    scores = [FUNCTIONS[rule](positive, shares >= cut) for cut in np.arange(0.005, 1, 0.01)]
    reached = FUNCTIONS[rule](positive, shares >= found)
    assert reached == pytest.approx(max(scores), abs=1e-9)
    assert reached > FUNCTIONS[rule](positive, shares >= 0.5)
    assert np.abs(shares - found).min() > 1e-3  # midway


@pytest.mark.parametrize("rule", RULES)
def test_of_equally_good_ones_the_nearest_to_a_half(rule: str) -> None:
    shares, positive = np.array([0.1, 0.2, 0.7, 0.9]), np.array([False, False, True, True])
    assert best_threshold(shares, positive, rule) == pytest.approx(0.45)
    assert best_threshold(np.array([0.4, 0.4]), np.array([True, False]), "balanced_accuracy") in (0.7, 0.2)
    for alike in (np.zeros(3, bool), np.ones(3, bool)):
        assert 0 < best_threshold(np.array([0.2, 0.3, 0.9]), alike, rule) < 1


def test_what_is_predicted() -> None:
    shares = np.array([[0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    assert decide(shares, ("no", "yes"), {}).tolist() == [0, 0, 1]
    assert decide(shares, ("no", "yes"), {"yes": 0.3}).tolist() == [0, 1, 1]
    assert decide(shares, ("no", "yes"), {"no": 0.75}).tolist() == [0, 1, 1]


def test_a_threshold_is_a_rule_or_a_number() -> None:
    adapter = TypeAdapter(Threshold)
    assert [adapter.validate_python(value) for value in ("f1", "mcc", "0.3", 0.3)] == [
        "f1",
        "mcc",
        "0.3",
        "0.3",
    ]
    assert (fixed_threshold("0.3"), fixed_threshold("f1"), fixed_threshold(None)) == (0.3, None, None)
    for wrong in ("f3", "1", "0", "nan", 1.5, "accuracy", ""):
        with pytest.raises(
            ValidationError,
            match=r"use f1, balanced_accuracy, mcc, f0\.5, f2, none, or a number between 0 and 1",
        ):
            adapter.validate_python(wrong)
