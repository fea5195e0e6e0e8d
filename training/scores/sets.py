"""Several labels a text: scores made from the outcomes of each text and label, equal to scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lorasweep.training.scores.measures import CountMeasure, OrderMeasure
from lorasweep.training.scores.outcomes import Outcomes


def row_values(outcomes: Outcomes, metric: str) -> np.ndarray | None:
    """What each row adds to a metric that is a mean of rows, float64; None for another one."""
    if metric == "loss":
        return np.asarray(outcomes.losses, dtype=np.float64)
    wrong = outcomes.labels != outcomes.predicted
    if metric in ("accuracy", "subset_accuracy"):
        return np.asarray(~wrong.any(axis=1), dtype=np.float64)
    return np.asarray(wrong.mean(axis=1)) if metric == "hamming_loss" else None


class SetCountMeasure(CountMeasure):
    """A function of the labels' counts."""

    def _influence(self, hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> np.ndarray:
        labels, predicted = self.outcomes.labels, self.outcomes.predicted
        return np.asarray((labels & predicted) @ hits + labels @ true + predicted @ guessed)

    def _counts(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels, predicted = self.outcomes.labels, self.outcomes.predicted
        weights = np.ones(len(labels)) if weights is None else weights
        return weights @ (labels & predicted), weights @ labels, weights @ predicted


@dataclass(frozen=True)
class MeanOrderMeasure:
    """The mean of a measure of each label's order, over the labels that have rows; see `measures.Measure`."""

    parts: tuple[OrderMeasure, ...]

    def value(self, weights: np.ndarray | None = None) -> float:
        """The score, with a weight for each row."""
        values = np.array([part.value(weights) for part in self.parts])
        present = np.isfinite(values)
        return float(values[present].mean()) if present.any() else float("nan")

    def contributions(self) -> np.ndarray:
        """What each row adds to the score."""
        parts = [part.contributions() for part in self.parts if np.isfinite(part.value())]
        return np.asarray(np.mean(parts, axis=0))


def label_orders(outcomes: Outcomes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each label, which rows have it and their scores; both of shape (rows,)."""
    margins = outcomes.margins
    if margins is None:
        raise ValueError("these outcomes have no margins")
    return ((outcomes.labels[:, n] > 0, margins[:, n]) for n in range(outcomes.labels.shape[1]))


def micro_f1(hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> complex:
    """F1 over all texts and labels together."""
    both = true.sum() + guessed.sum()
    return complex(2 * hits.sum() / (both if np.real(both) > 0 else 1))


def co_occurrence(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Texts that have a label (first axis) and are given a label: int64, shape (labels, labels).

    Args:
        labels, predicted: uint8, shape (rows, labels).
    """
    counts: np.ndarray = labels.T.astype(np.int64) @ predicted.astype(np.int64)
    return counts
