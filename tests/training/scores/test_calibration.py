"""Calibration error against the definition, counted row by row, and where it is known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lorasweep.training.scores.calibration import confidence_bins, expected_calibration_error

RANDOM = np.random.default_rng(0)


def by_definition(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Equation 3 of Guo et al., one bin and one row at a time."""
    total = 0.0
    for number in range(bins):
        rows = [
            (max(row), row.index(max(row)) == label)
            for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True)
            if number / bins < max(row) <= (number + 1) / bins
        ]
        if rows:
            confidence, accuracy = (sum(column) / len(rows) for column in zip(*rows, strict=True))
            total += len(rows) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_error_is_the_definitions(bins: int) -> None:
    probabilities = RANDOM.dirichlet([0.4] * 5, size=400)
    labels = RANDOM.integers(0, 5, size=400)
    error = expected_calibration_error(probabilities, labels, bins)
    assert 0.1 < error < 0.9
    assert error == pytest.approx(by_definition(probabilities, labels, bins))


def test_fifteen_bins_unless_told_otherwise() -> None:
    probabilities, labels = np.array([[0.65, 0.35], [0.69, 0.31]]), np.array([0, 1])
    # 2/3 is an edge of fifteen bins; ten would hold both rows in one.
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.35 + 0.69) / 2)
    assert expected_calibration_error(probabilities, labels, 10) == pytest.approx(0.67 - 0.5)


def test_a_calibrated_and_a_conceited_classifier() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert expected_calibration_error(probabilities, np.array([1, 1, 1, 1])) == pytest.approx(0.75)
    assert expected_calibration_error(np.eye(2)[[0, 0]], np.array([0, 1])) == pytest.approx(0.5)


def test_errors_of_one_bin_make_up_for_each_other_and_those_of_two_do_not() -> None:
    near = np.array([[0.61, 0.39], [0.65, 0.35]])
    far = np.array([[0.61, 0.39], [0.95, 0.05]])
    labels = np.array([0, 1])
    assert expected_calibration_error(near, labels) == pytest.approx(abs(0.63 - 0.5))
    assert expected_calibration_error(far, labels) == pytest.approx((0.39 + 0.95) / 2)


def test_bins_hold_their_upper_edge() -> None:
    bins = confidence_bins(np.array([[0.5, 0.5], [0.51, 0.49], [1.0, 0.0]]), np.array([0, 1, 0]), bins=2)
    assert [(entry.low, entry.high, entry.rows) for entry in bins] == [(0, 0.5, 1), (0.5, 1, 2)]
    assert bins[1].confidence == pytest.approx(0.755)
    assert bins[1].accuracy == pytest.approx(0.5)


def test_no_rows() -> None:
    empty = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    assert math.isnan(expected_calibration_error(*empty))
    assert {entry.rows for entry in confidence_bins(*empty)} == {0}


def test_a_probability_that_rounding_lifted_over_one() -> None:
    probabilities = np.array([[1 + 1e-12, 0.0]])
    assert sum(entry.rows for entry in confidence_bins(probabilities, np.array([0]))) == 1
