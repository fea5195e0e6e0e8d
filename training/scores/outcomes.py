"""What became of each row of a split: all that its scores are made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lorasweep.training.data.labels import several

# Rows of a split whose outcomes are kept: beyond these an error is known well enough.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Outcomes:
    """What became of each row: all that its scores are made from.

    Attributes:
        labels, predicted: classes; int, shape (rows,). Of several labels a text: uint8, shape (rows, labels).
        losses: cross entropy in nats; float, shape (rows,).
        of_rows: rows of the split, of which `MOST_ROWS` at most are kept, evenly spaced.
        ranks: number of classes that are more probable than the row's own; int, shape (rows,). Of equal ones the
            later counts as more probable, as in scikit-learn. None in older checkpoints.
        margins: of two classes: logit of the positive one minus the other's; float, shape (rows,). Of several labels a
            text: their logits, shape (rows, labels).
        positive: number of the positive class.
        label_names: of the classes; empty where no metric names one.
    """

    labels: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    of_rows: int
    ranks: np.ndarray | None = None
    margins: np.ndarray | None = None
    positive: int = 1
    label_names: tuple[str, ...] = ()

    def same_rows(self, other: Outcomes) -> bool:
        """Whether both are of the same rows, as far as their labels tell."""
        return self.of_rows == other.of_rows and np.array_equal(self.labels, other.labels)

    def take(self, rows: np.ndarray) -> Outcomes:
        """Some of the rows, by their numbers, as a split of their own."""
        return replace(self._only(rows), of_rows=len(rows))

    def kept(self) -> Outcomes:
        """As they are stored: of the most rows that are kept, in 32 bits."""
        rows = len(self.labels)
        few = self._only(np.arange(MOST_ROWS) * rows // MOST_ROWS) if rows > MOST_ROWS else self
        kind = np.uint8 if several(self.labels) else np.int32
        return replace(
            few,
            labels=few.labels.astype(kind),
            predicted=few.predicted.astype(kind),
            losses=few.losses.astype(np.float32),
            ranks=None if few.ranks is None else few.ranks.astype(np.int32),
            margins=None if few.margins is None else few.margins.astype(np.float32),
        )

    def _only(self, rows: np.ndarray) -> Outcomes:
        return replace(
            self,
            labels=self.labels[rows],
            predicted=self.predicted[rows],
            losses=self.losses[rows],
            ranks=None if self.ranks is None else self.ranks[rows],
            margins=None if self.margins is None else self.margins[rows],
        )


def all_outcomes(
    logits: np.ndarray,
    labels: np.ndarray,
    label_names: tuple[str, ...] = (),
    positive: int = 1,
    predicted: np.ndarray | None = None,
) -> Outcomes:
    """The outcomes of predictions, of every row and in float64.

    Args:
        logits: float, shape (rows, classes).
        labels: int, shape (rows,).
        positive: number of the positive class, of two.
        predicted: int, shape (rows,), where it is not the most probable class.
    """
    if several(labels):
        return set_outcomes(logits, labels, label_names, predicted)
    rows = np.arange(len(labels))
    own = logits[rows, labels][:, None]
    later = np.arange(logits.shape[1])[None, :] > labels[:, None]
    margins = None
    if logits.shape[1] == 2:
        margins = logits[:, positive].astype(np.float64) - logits[:, 1 - positive]
    return Outcomes(
        labels=labels,
        predicted=logits.argmax(axis=1) if predicted is None else predicted,
        losses=-log_softmax(logits)[rows, labels],
        of_rows=len(labels),
        ranks=((logits > own) | ((logits == own) & later)).sum(axis=1),
        margins=margins,
        positive=positive,
        label_names=label_names,
    )


def set_outcomes(
    logits: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...], predicted: np.ndarray | None
) -> Outcomes:
    """The outcomes of predictions of several labels a text.

    Args:
        logits: float, shape (rows, labels).
        labels: 1 where a row has the label; uint8, shape (rows, labels).
        predicted: such a matrix, where it is not what a threshold of one half gives.
    """
    return Outcomes(
        labels=labels,
        predicted=(logits > 0).astype(np.uint8) if predicted is None else predicted,
        losses=set_losses(logits, labels),
        of_rows=len(labels),
        margins=logits.astype(np.float64),
        label_names=label_names,
    )


def set_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Binary cross entropy of each row in nats, the mean over its labels; float64, shape (rows,)."""
    scores = logits.astype(np.float64)
    # log(1 + e^x) - y·x, which overflows for no x.
    losses = np.logaddexp(0, scores) - labels * scores
    return np.asarray(losses.mean(axis=1))


def row_outcomes(
    logits: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...] = (), positive: int = 1
) -> Outcomes:
    """The outcomes of predictions as they are kept: see `Outcomes.kept`.

    Args:
        logits: float, shape (rows, classes).
        labels: int, shape (rows,).
    """
    return all_outcomes(logits, labels, label_names, positive).kept()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
