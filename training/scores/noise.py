"""How much of a score, or of the difference of two, is noise of the rows that it was measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorasweep.training.scores.scores import macro_f1, row_losses
from lorasweep.training.settings import Metric

# Rows of a split whose outcomes are kept: beyond these an error is known well enough.
MOST_ROWS = 20_000
# Standard errors within which a difference counts as noise: 95 % of differences that are nothing but noise.
FACTOR = 2.0


@dataclass(frozen=True)
class Outcomes:
    """What became of each row: all that its scores are made from.

    Attributes:
        labels, predicted: classes; int32, shape (rows,).
        losses: cross entropy in nats; float32, shape (rows,).
        of_rows: rows of the split, of which `MOST_ROWS` at most are kept, evenly spaced.
    """

    labels: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    of_rows: int

    def same_rows(self, other: Outcomes) -> bool:
        """Whether both are of the same rows, as far as their labels tell."""
        return self.of_rows == other.of_rows and np.array_equal(self.labels, other.labels)


def row_outcomes(logits: np.ndarray, labels: np.ndarray) -> Outcomes:
    """The outcomes of predictions.

    Args:
        logits: float, shape (rows, classes).
        labels: int, shape (rows,).
    """
    rows = len(labels)
    if rows > MOST_ROWS:
        kept = np.arange(MOST_ROWS) * rows // MOST_ROWS
        logits, labels = logits[kept], labels[kept]
    return Outcomes(
        labels=labels.astype(np.int32),
        predicted=logits.argmax(axis=1).astype(np.int32),
        losses=row_losses(logits, labels).astype(np.float32),
        of_rows=rows,
    )


def contributions(outcomes: Outcomes, metric: Metric) -> np.ndarray:
    """What each row adds to a score: float64, shape (rows,), with the score as its mean.

    For accuracy 0 or 1, and for the loss the row's own. Macro-F1 is no mean of rows: a row has the score and its
    influence on it (the infinitesimal jackknife; Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 21).
    """
    labels, predicted = outcomes.labels, outcomes.predicted
    if metric == "loss":
        return np.asarray(outcomes.losses, dtype=np.float64)
    if metric == "accuracy":
        return np.asarray(labels == predicted, dtype=np.float64)
    rows, classes = len(labels), 1 + int(max(labels.max(), predicted.max()))
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    seen = both > 0
    # Of a class: F1 = 2 · hits / both. One more row of share 1/n changes it by (2 · hit - F1 · counts) · n / both.
    f1 = 2 * hits / np.maximum(both, 1)
    weight = rows / np.maximum(both, 1) / seen.sum()
    influence = 2 * (labels == predicted) * weight[labels]
    influence -= f1[labels] * weight[labels] + f1[predicted] * weight[predicted]
    return np.asarray(float(f1[seen].mean()) + influence)


def standard_error(outcomes: Outcomes, metric: Metric) -> float:
    """Standard error of a score, for other rows of the same kind; for accuracy the binomial one."""
    return float(contributions(outcomes, metric).std() / np.sqrt(outcomes.of_rows))


def paired_error(one: Outcomes, other: Outcomes, metric: Metric) -> float:
    """Standard error of the difference of two scores on the same rows, if there is no true difference.

    What both get right or wrong cancels out, so it is often half of what the scores' own errors would give. For
    accuracy, difference by error is the root of McNemar's statistic: (b - c)² / (b + c).
    """
    apart = contributions(one, metric) - contributions(other, metric)
    return float(np.sqrt((apart**2).mean() / one.of_rows))


def paired_interval(
    logits: np.ndarray,
    other: np.ndarray,
    labels: np.ndarray,
    metric: Metric,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How much better or worse predictions score than others of the same rows.

    The interval is a paired bootstrap's: both scores are of the same rows, drawn with replacement.

    Args:
        logits, other: float, shape (rows, classes).
        labels: int, shape (rows,).

    Returns:
        The first's score minus the other's, and the ends of the 95 % interval.
    """
    random = np.random.default_rng(seed)
    rows = len(labels)

    def scorer(values: np.ndarray) -> tuple[np.ndarray, bool]:
        if metric == "loss":
            return row_losses(values, labels), False
        predicted = values.argmax(axis=1)
        return (predicted, True) if metric == "macro_f1" else ((predicted == labels).astype(float), False)

    (mine, classes), (theirs, _) = scorer(logits), scorer(other)

    def difference(drawn: np.ndarray | slice) -> float:
        if classes:
            return macro_f1(labels[drawn], mine[drawn]) - macro_f1(labels[drawn], theirs[drawn])
        return float((mine[drawn] - theirs[drawn]).mean())

    drawn = [difference(random.integers(0, rows, rows)) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return difference(slice(None)), float(low), float(high)
