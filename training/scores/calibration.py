"""Calibration: how well a classifier's confidence agrees with its accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
"""Equal-width bins of confidence, as in Guo et al. (2017)."""


@dataclass(frozen=True)
class ConfidenceBin:
    """Rows whose confidence, the probability of the predicted label, is in (low, high].

    `confidence` and `accuracy` are means over the bin's rows, in [0, 1]; 0 for an empty bin.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def confidence_bins(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> list[ConfidenceBin]:
    """The bins of a reliability diagram: rows by their confidence.

    Args:
        probabilities: float, shape (rows, classes); each row sums to 1.
        labels: int, shape (rows,).
    """
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    # A bin includes its upper edge, not its lower one. Rounding may put values past the ends.
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    rows = np.bincount(places, minlength=bins)
    shared = np.maximum(rows, 1)
    confidences = np.bincount(places, weights=confidence, minlength=bins) / shared
    accuracies = np.bincount(places, weights=hits, minlength=bins) / shared
    return [
        ConfidenceBin(float(edges[i]), float(edges[i + 1]), int(rows[i]), float(c), float(a))
        for i, (c, a) in enumerate(zip(confidences, accuracies, strict=True))
    ]


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean difference of confidence and accuracy over the bins, weighted by rows; in [0, 1], NaN without rows.

    Naeini, Cooper & Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015);
    equation 3 of Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017),
    with their 15 equal-width bins. Only the predicted label's probability counts.

    Args:
        probabilities: float, shape (rows, classes); each row sums to 1.
        labels: int, shape (rows,).
    """
    if not len(labels):
        return float("nan")
    entries = confidence_bins(probabilities, labels, bins)
    return sum(entry.rows * abs(entry.confidence - entry.accuracy) for entry in entries) / len(labels)
