"""Confident learning: which labels out-of-sample predictions contradict, and how many labels are wrong.

Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 2021, arXiv
1911.00068). The rule for the rows is the paper's second method, the off-diagonal of the confident joint, ranked by
normalised margin. As in the authors' cleanlab, a row whose label is the most probable one is never suspect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelErrors:
    """What predictions say of the labels of rows that their models have not seen.

    Attributes:
        suspect: rows whose label is probably wrong, the most contradicted first; int64, shape (suspects,).
        suggested: the most probable label of every row; int64, shape (rows,).
        margin: of every row, probability of its label minus that of the most probable other one, in [-1, 1]; float64,
            shape (rows,).
        joint: estimated share of the rows by given label (first axis) and true label; float64, shape
            (classes, classes), of sum 1.
    """

    suspect: np.ndarray
    suggested: np.ndarray
    margin: np.ndarray
    joint: np.ndarray

    @property
    def share(self) -> float:
        """Estimated share of wrong labels, in [0, 1]: the joint's off-diagonal sum."""
        return float(max(0.0, self.joint.sum() - np.trace(self.joint)))


def find_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> LabelErrors:
    """Find labels that are probably wrong.

    A class's threshold is the mean probability that rows of this label have for it, so a class that is hard for the
    model has a low one. A row counts as its most probable class among those whose threshold it reaches; these counts
    by given label are the confident joint, scaled to the number of rows of each label.

    Args:
        probabilities: out of sample; float, shape (rows, classes), each row sums to 1.
        labels: int64, shape (rows,).
    """
    rows, classes = probabilities.shape
    probabilities = probabilities.astype(np.float64)
    counts = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(rows), labels]
    thresholds = np.full(classes, np.inf)
    present = counts > 0
    thresholds[present] = np.bincount(labels, weights=own, minlength=classes)[present] / counts[present]
    # Rounding: where all rows of a class have one probability, their mean may be larger in the last digit.
    reached = probabilities >= thresholds - 1e-9
    confident = reached.any(axis=1)
    true = np.where(reached, probabilities, -1.0).argmax(axis=1)

    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[confident], true[confident]), 1)
    # Of a label without a confident row nothing is known against it.
    unknown = np.flatnonzero(joint.sum(axis=1) == 0)
    joint[unknown, unknown] = 1
    joint *= (counts / np.maximum(joint.sum(axis=1), 1))[:, None] / max(rows, 1)

    others = probabilities.copy()
    others[np.arange(rows), labels] = -1.0
    margin = own - others.max(axis=1) if classes > 1 else own
    suspect = np.flatnonzero(confident & (true != labels) & (margin < 0))
    suspect = suspect[np.argsort(margin[suspect], kind="stable")]
    return LabelErrors(suspect, probabilities.argmax(axis=1), margin, joint)
