"""The winner's predictions of the test split as they were kept: scores of single classes without a model."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load_file

from training.dataset import Dataset
from training.evaluate import ClassScores, score_classes
from tuning.record import SweepFolder, Winner

# As `tuning.winner` writes it; that room imports what only a running sweep needs.
TEST_FILE = "test.safetensors"


def winner_class_scores(folder: SweepFolder, data: Dataset, winner: Winner) -> list[ClassScores]:
    """Scores of each class on the test split, in the order of the label names.

    Returns:
        Nothing where the predictions are gone, broken, of other rows or of another winner.
    """
    try:
        logits = load_file(folder.winner / TEST_FILE)["logits"]
    except Exception:  # safetensors has errors of its own for what is gone, cut off or of another kind
        return []
    labels = data.test.labels
    if logits.shape != (len(labels), len(data.label_names)) or not np.isfinite(logits).all():
        return []
    if abs(float((logits.argmax(axis=1) == labels).mean()) - winner.test.accuracy) > 1e-6:
        return []
    return score_classes(logits, labels, data.label_names)
