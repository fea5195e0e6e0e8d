"""Thresholds of labels: chosen on the validation split, and used in place of the most probable class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def best_threshold(probabilities: np.ndarray, positive: np.ndarray, rule: str) -> float:
    """The threshold with the best score on some rows; of equally good ones the nearest to 0.5.

    It lies midway between two probabilities, so that rounding moves no row across it.

    Args:
        probabilities: of the positive label; float64, shape (rows,).
        positive: whether each row has it; bool, shape (rows,).
        rule: one of `RULES` of `threshold_rules.py`.
    """
    distinct, place = np.unique(-probabilities, return_inverse=True)
    levels = -distinct
    total, rows = positive.sum(), len(positive)
    # What the first so many levels give, from no positive prediction to nothing else.
    hits = np.concatenate([[0], np.cumsum(np.bincount(place, weights=positive))])
    guessed = np.concatenate([[0], np.cumsum(np.bincount(place))])
    cuts = (np.concatenate([[1.0], levels]) + np.concatenate([levels, [0.0]])) / 2
    scores = _scores(rule, hits, guessed, float(total), float(rows))
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])


def _scores(rule: str, hits: np.ndarray, guessed: np.ndarray, total: float, rows: float) -> np.ndarray:
    """The score at each threshold, from how many rows are predicted as positive there and how many are."""
    if rule == "f1":
        return np.asarray(2 * hits / np.maximum(guessed + total, 1))
    others = rows - total
    right = others - (guessed - hits)
    if rule == "balanced_accuracy":
        return np.asarray((hits / max(total, 1) + right / max(others, 1)) / 2)
    spread = np.sqrt(total * others * guessed * (rows - guessed))
    return np.asarray(
        np.where(spread > 0, (rows * hits - total * guessed) / np.where(spread > 0, spread, 1), 0.0)
    )


def decide(
    probabilities: np.ndarray, label_names: Sequence[str], thresholds: Mapping[str, float]
) -> np.ndarray:
    """The predicted class of each row: int64, shape (rows,).

    Of two classes the one with a threshold is predicted from it on, and else the other; without thresholds the most
    probable class.

    Args:
        probabilities: float, shape (rows, classes).
        thresholds: label → probability.
    """
    if len(label_names) == 2:
        for label, threshold in thresholds.items():
            number = list(label_names).index(label)
            return np.where(probabilities[:, number] >= threshold, number, 1 - number)
    return np.asarray(probabilities.argmax(axis=1))
