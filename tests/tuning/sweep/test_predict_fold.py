"""Wrong labels made on purpose, found by a tiny model trained on the other fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_trials import dataset, hyperparameters, settings, texts

from lorasweep.training.data.folds import fold_of_rows
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.scores.label_errors import find_label_errors
from lorasweep.training.scores.scores import log_softmax
from lorasweep.tuning.sweep.after_trials import predict_fold
from lorasweep.tuning.trials.trial import TrialSetup

FLIPPED = 10


def test_flipped_labels_are_found(tiny_base: Callable[[str], Path]) -> None:
    """No row is predicted by a model that has seen it: else it would have learnt the wrong label."""
    train = texts(180)
    train = train.take(np.flatnonzero(train.labels < 2))
    flipped = np.random.default_rng(1).choice(len(train), size=FLIPPED, replace=False)
    labels = train.labels.copy()
    labels[flipped] = 1 - labels[flipped]
    data = replace(dataset(), train=replace(train, labels=labels))
    short = settings(epochs=6, evaluations_per_epoch=1)
    setup = TrialSetup(resolve_base_model(str(tiny_base("bert"))), short, threads=1, gpu_share=0)
    fold = fold_of_rows(labels, 2, seed=0)
    logits = np.empty((len(labels), 3), dtype=np.float32)
    for number in range(2):
        rows = np.flatnonzero(fold == number)
        logits[rows] = predict_fold(hyperparameters(learning_rate=0.01), rows, data, setup)
    found = find_label_errors(np.exp(log_softmax(logits)), labels)
    suspects = set(found.suspect.tolist())
    assert len(suspects & set(flipped.tolist())) >= 0.7 * FLIPPED
    assert len(suspects) <= 1.5 * FLIPPED
    assert abs(found.share - FLIPPED / len(labels)) < 0.05
