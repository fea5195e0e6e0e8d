"""The winner's stored predictions of the test split: per-class scores without loading a model."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load_file

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.scores.outcomes import log_softmax
from lorasweep.training.scores.scores import ClassScores, score_classes, score_labels
from lorasweep.training.scores.set_thresholds import ONE_HALF, predict_sets
from lorasweep.training.scores.thresholds import decide
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import Winner

# Written by `lorasweep.tuning.sweep.winner.winner`, which imports what only a running sweep needs.
TEST_FILE = "test.safetensors"


def winner_logits(folder: SweepFolder, data: Dataset, winner: Winner) -> np.ndarray | str:
    """The winner's logits of the test split.

    Returns:
        float32, shape (rows, classes); or a sentence that says why they are missing or do not fit.
    """
    try:
        logits = np.asarray(load_file(folder.winner / TEST_FILE)["logits"])
    except Exception as error:  # safetensors has its own errors for missing and broken files
        return f"the winner's predictions could not be read ({type(error).__name__})"
    labels = data.test.labels
    if logits.shape != (len(labels), len(data.label_names)) or not np.isfinite(logits).all():
        return "the winner's predictions do not fit the test rows, and are left out"
    right = (
        (winner_sets(logits, data, winner) == labels).all(axis=1)
        if data.multi_label
        else logits.argmax(axis=1) == labels
    )
    if abs(float(right.mean()) - winner.test.accuracy) > 1e-6:
        return "the stored predictions are not the recorded winner's, and are left out"
    return logits


def winner_class_scores(folder: SweepFolder, data: Dataset, winner: Winner) -> list[ClassScores]:
    """Scores of each class on the test split, in the order of the label names; empty without predictions."""
    logits = winner_logits(folder, data, winner)
    if isinstance(logits, str):
        return []
    if data.multi_label:
        return score_labels(winner_sets(logits, data, winner), data.test.labels, data.label_names)
    predicted = winner_predictions(np.exp(log_softmax(logits)), data, winner)
    return score_classes(predicted, data.test.labels, data.label_names)


def winner_sets(logits: np.ndarray, data: Dataset, winner: Winner) -> np.ndarray:
    """The winner's sets of labels of the test split, by its thresholds: uint8, of the logits' shape (rows, labels)."""
    values = winner.thresholds.values if winner.thresholds else {}
    return predict_sets(logits, np.array([values.get(name, ONE_HALF) for name in data.label_names]))


def winner_predictions(probabilities: np.ndarray, data: Dataset, winner: Winner) -> np.ndarray:
    """The winner's labels of the test split, by its thresholds if it has some: int64, shape (rows,).

    Args:
        probabilities: float, shape (rows, classes).
    """
    thresholds = winner.thresholds.values if winner.thresholds else {}
    return decide(probabilities, data.label_names, thresholds)
