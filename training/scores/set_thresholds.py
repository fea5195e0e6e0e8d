"""Thresholds for several labels a text: from which probability on a label is predicted."""

from __future__ import annotations

import numpy as np

from lorasweep.training.threshold_rules import BETAS, DEFAULT_RULE, NONE

ONE_HALF = 0.5
FEWEST = 10
"""Rows with a label from which it gets a threshold of its own: one fitted to fewer is mostly luck."""


def thresholds_by(rule: str | None, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The labels' thresholds by a rule; float64, shape (labels,).

    Args:
        rule: `f1`, `f0.5` or `f2` for the best F-beta on these rows, `none` for one half, or a number for all labels;
            `f1` if None.
        logits, labels: as of `fit_thresholds`.
    """
    rule = rule or DEFAULT_RULE
    if rule in BETAS:
        return fit_thresholds(logits, labels, BETAS[rule])
    return np.full(logits.shape[1], ONE_HALF if rule == NONE else float(rule))


def fit_thresholds(logits: np.ndarray, labels: np.ndarray, beta: float) -> np.ndarray:
    """A threshold for each label, by F-beta on these rows; float64, shape (labels,).

    The best F1 of a label that a model hardly tells apart is reached by predicting it almost everywhere: the best
    threshold is half of the best F1 (Lipton, Elkan & Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1
    Measure", 2014). That raises the mean over labels a little, and ruins the predictions of the texts. So no label's
    threshold is below the common one, which is the best for all labels together; labels that the model knows well, or
    predicts too often, get a higher one of their own, if enough rows have them.

    Args:
        logits: float, shape (rows, labels).
        labels: 1 where a row has the label; uint8, shape (rows, labels).
        beta: how much more recall counts than precision.
    """
    common = best_cut(logits.ravel(), labels.ravel() > 0, beta)
    cuts = np.full(logits.shape[1], common)
    for label in np.flatnonzero(labels.sum(axis=0, dtype=np.int64) >= FEWEST):
        cuts[label] = max(common, best_cut(logits[:, label], labels[:, label] > 0, beta))
    # Never 1: at such a threshold no logit would be high enough.
    return np.asarray(np.minimum(1 / (1 + np.exp(-cuts)), np.nextafter(1.0, 0.0)))


def best_cut(scores: np.ndarray, positive: np.ndarray, beta: float) -> float:
    """The logit above which rows are predicted for the highest F-beta; 0 without a positive row.

    It lies in the middle between two scores; of equally good ones the nearest to 0.

    Args:
        scores: float, shape (rows,).
        positive: bool, shape (rows,).
    """
    total = int(positive.sum())
    if not total:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    hits, predicted = np.cumsum(positive[order]), np.arange(1, len(scores) + 1)
    # F-beta = (1 + β²) · hits / (β² · positive rows + predicted rows).
    values = (1 + beta**2) * hits / (beta**2 * total + predicted)
    ends = np.append(ordered[1:] < ordered[:-1], True)  # where rows of an equal score end
    below = np.append(ordered[1:], ordered[-1] - 2.0)
    cuts, values = ((ordered + below) / 2)[ends], values[ends]
    best = cuts[values >= values.max() - 1e-12]
    return float(best[np.abs(best).argmin()])


def predict_sets(logits: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
    """The predicted labels: uint8, shape (rows, labels).

    Args:
        logits: float, shape (rows, labels).
        thresholds: of the labels' probabilities, shape (labels,); one half if None.
    """
    if thresholds is None:
        return (logits > 0).astype(np.uint8)
    with np.errstate(divide="ignore"):
        cuts = np.log(thresholds) - np.log1p(-thresholds)
    return np.asarray(logits > cuts, dtype=np.uint8)
