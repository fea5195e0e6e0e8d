"""The metrics' functions, in NumPy: equal to scikit-learn's, which would add 50 MB to the process of every trial.

There are three kinds: means of what each row adds, functions of counts by class, and functions of counts by score. Each
takes weights of the rows, so one definition gives the score, its bootstrap, and the influence of every row on it.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lorasweep.training.data.labels import several
from lorasweep.training.metrics import label_of, most_of
from lorasweep.training.scores import sets
from lorasweep.training.scores.measures import (
    CountMeasure,
    Measure,
    OfCounts,
    OfOrder,
    OrderMeasure,
    RowMean,
)
from lorasweep.training.scores.outcomes import Outcomes


def measure(outcomes: Outcomes, metric: str) -> Measure:
    """Any metric of outcomes. Raises `ValueError` where they lack what it is made from, as older records do."""
    of_sets = several(outcomes.labels)
    values = sets.row_values(outcomes, metric) if of_sets else _row_values(outcomes, metric)
    if values is not None:
        return RowMean(values)
    if (order := ORDERED.get(metric)) is not None:
        if of_sets:
            return sets.MeanOrderMeasure(
                tuple(OrderMeasure(*each, order) for each in sets.label_orders(outcomes))
            )
        return OrderMeasure(*_ordered(outcomes, metric), order)
    label = label_of(metric)
    function = COUNTED[metric] if label is None else partial(_class_f1, outcomes.label_names.index(label))
    return (sets.SetCountMeasure if of_sets else CountMeasure)(outcomes, function)


def _row_values(outcomes: Outcomes, metric: str) -> np.ndarray | None:
    """What each row adds, float64; None for a metric that is no mean of rows."""
    if metric == "loss":
        return np.asarray(outcomes.losses, dtype=np.float64)
    if metric == "accuracy":
        return np.asarray(outcomes.labels == outcomes.predicted, dtype=np.float64)
    if (most := most_of(metric)) is not None:
        if outcomes.ranks is None:
            raise ValueError("these outcomes have no ranks")
        return np.asarray(outcomes.ranks < most, dtype=np.float64)
    if metric == "brier":
        positive, margins = _ordered(outcomes, metric)
        # The logistic function, which tanh keeps from overflowing.
        return np.asarray(((1 + np.tanh(margins / 2)) / 2 - positive) ** 2)
    return None


def _ordered(outcomes: Outcomes, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row is positive, and its score; both of shape (rows,)."""
    if outcomes.margins is None:
        raise ValueError(f"{metric} is for two classes, and these outcomes have no margins")
    return outcomes.labels == outcomes.positive, outcomes.margins.astype(np.float64)


def _f1(hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> np.ndarray:
    """F1 = 2 · hits / (true rows + predicted rows) of each class; 0 for one without either."""
    both = true + guessed
    return np.asarray(2 * hits / np.where(np.real(both) > 0, both, 1))


def _class_f1(index: int, hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> complex:
    return complex(_f1(hits, true, guessed)[index])


def _macro_f1(hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> complex:
    """Over the classes that have rows or are predicted."""
    return complex(_f1(hits, true, guessed)[np.real(true + guessed) > 0].mean())


def _weighted_f1(hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> complex:
    return complex((_f1(hits, true, guessed) * true).sum() / true.sum())


def _balanced_accuracy(hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> complex:
    """Over the classes that have rows."""
    present = np.real(true) > 0
    return complex((hits[present] / true[present]).mean())


def _mcc(hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> complex:
    """Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (2004)."""
    rows = true.sum()
    spread = (rows**2 - (true**2).sum()) * (rows**2 - (guessed**2).sum())
    if np.real(spread) <= 0:
        return 0j
    return complex((rows * hits.sum() - (true * guessed).sum()) / np.sqrt(spread))


COUNTED: dict[str, OfCounts] = {
    "macro_f1": _macro_f1,
    "micro_f1": sets.micro_f1,
    "balanced_accuracy": _balanced_accuracy,
    "weighted_f1": _weighted_f1,
    "mcc": _mcc,
}


def _auroc(high: np.ndarray, low: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Area under the ROC curve: the probability that a positive row has the higher score, a tie counting half."""
    positive, others = high.sum(), low.sum()
    if not positive or not others:
        return float("nan"), np.zeros_like(high), np.zeros_like(low)
    beaten = 1 - (np.cumsum(low) - low / 2) / others
    beating = (np.cumsum(high) - high / 2) / positive
    area = float(high @ beaten / positive)
    return area, (beaten - area) / positive, (beating - area) / others


def _average_precision(high: np.ndarray, low: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean precision at the distinct scores as thresholds, each weighted by the recall that it adds."""
    positive, counted = high.sum(), np.cumsum(high + low)
    if not positive:
        return float("nan"), np.zeros_like(high), np.zeros_like(low)
    counted = np.maximum(counted, 1e-300)  # no row of a draw is as high
    precision = np.cumsum(high) / counted
    value = float(high @ precision / positive)
    # One more row changes the precision at its own threshold and at all lower ones.
    gained, lost = (np.cumsum(part[::-1])[::-1] for part in (high / counted, high * precision / counted))
    return value, (precision - value + gained - lost) / positive, -lost / positive


ORDERED: dict[str, OfOrder] = {"auroc": _auroc, "average_precision": _average_precision}
