"""What a metric gives of the rows of a split: the score, by weights for a bootstrap, and each row's influence on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lorasweep.training.scores.outcomes import Outcomes

# A function of the classes' hits, true rows and predicted rows, each of shape (classes,).
OfCounts = Callable[[np.ndarray, np.ndarray, np.ndarray], complex]
# A function of the positive and the other rows at each distinct score, from the highest to the lowest; and its
# derivatives by both.
OfOrder = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray, np.ndarray]]
# Far below rounding, as in a complex step nothing is subtracted.
STEP = 1e-30


class Measure(Protocol):
    """A metric of the rows of one split."""

    def value(self, weights: np.ndarray | None = None) -> float:
        """The score, with a weight for each row, shape (rows,); NaN where the rows do not define it."""
        ...

    def contributions(self) -> np.ndarray:
        """What each row adds to the score: float64, shape (rows,), with the score as its mean.

        Where a score is no mean of rows, a row has the score and its influence on it (the infinitesimal jackknife;
        Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 21). For AUROC the errors made from it are
        those of DeLong, DeLong & Clarke-Pearson (1988).
        """
        ...


@dataclass(frozen=True)
class RowMean:
    """A mean of values of the rows, shape (rows,)."""

    values: np.ndarray

    def value(self, weights: np.ndarray | None = None) -> float:
        """See `Measure`."""
        if weights is None:
            return float(self.values.mean())
        return float(weights @ self.values / weights.sum())

    def contributions(self) -> np.ndarray:
        """See `Measure`."""
        return self.values


@dataclass(frozen=True)
class CountMeasure:
    """A function of the classes' counts."""

    outcomes: Outcomes
    function: OfCounts

    def value(self, weights: np.ndarray | None = None) -> float:
        """See `Measure`."""
        return float(np.real(self.function(*self._counts(weights))))

    def contributions(self) -> np.ndarray:
        """See `Measure`."""
        derivatives = gradient(self.function, np.array(self._counts())) * len(self.outcomes.labels)
        return np.asarray(self.value() + self._influence(*derivatives))

    def _influence(self, hits: np.ndarray, true: np.ndarray, guessed: np.ndarray) -> np.ndarray:
        """How much each row moves the score, by what one more of each count does; shape (rows,)."""
        labels, predicted = self.outcomes.labels, self.outcomes.predicted
        return np.asarray(
            true[labels] + guessed[predicted] + np.where(labels == predicted, hits[labels], 0.0)
        )

    def _counts(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels, predicted = self.outcomes.labels, self.outcomes.predicted
        classes = max(1 + int(max(labels.max(), predicted.max())), len(self.outcomes.label_names))
        right = labels == predicted
        hits = np.bincount(labels[right], None if weights is None else weights[right], classes)
        counts = (np.bincount(values, weights, classes) for values in (labels, predicted))
        return (hits.astype(np.float64), *(values.astype(np.float64) for values in counts))  # type: ignore[return-value]


def gradient(function: OfCounts, counts: np.ndarray) -> np.ndarray:
    """Derivatives by each count, shape (3, classes), exact: by complex steps (Squire & Trapp, 1998)."""
    at = counts.astype(np.complex128)
    result = np.zeros(at.shape)
    for place in np.ndindex(at.shape):
        moved = at.copy()
        moved[place] += 1j * STEP
        result[place] = np.imag(function(*moved)) / STEP
    return result


class OrderMeasure:
    """A function of how positive and other rows are ordered by their scores.

    Args:
        positive: bool, shape (rows,).
        scores: float, shape (rows,); equal ones are one threshold.
        function: of the rows at each threshold.
    """

    def __init__(self, positive: np.ndarray, scores: np.ndarray, function: OfOrder) -> None:
        self._positive = positive
        self._function = function
        # Sorted once: a bootstrap counts anew for each draw, and sorts no more.
        distinct, self._place = np.unique(-scores, return_inverse=True)
        self._thresholds = len(distinct)

    def value(self, weights: np.ndarray | None = None) -> float:
        """See `Measure`."""
        return self._function(*self._counts(weights))[0]

    def contributions(self) -> np.ndarray:
        """See `Measure`."""
        value, high, low = self._function(*self._counts(None))
        influence = np.where(self._positive, high[self._place], low[self._place])
        return np.asarray(value + influence * len(self._place))

    def _counts(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        weights = np.ones(len(self._place)) if weights is None else weights
        high, low = (
            np.bincount(self._place, weights * kind, self._thresholds)
            for kind in (self._positive, ~self._positive)
        )
        return high, low
