"""Wrong labels made on purpose, found by a tiny model trained on the other fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_trials import dataset, hyperparameters, settings, texts

from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.data.folds import fold_of_rows
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.scores.label_errors import find_label_errors
from lorasweep.training.scores.outcomes import log_softmax
from lorasweep.tuning.sweep.winner import after_trials
from lorasweep.tuning.sweep.winner.after_trials import TestedClassifier, predict_fold
from lorasweep.tuning.trials.trial import TrialSetup

FLIPPED = 10


def test_flipped_labels_are_found(tiny_base: Callable[[str], Path]) -> None:
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


def test_no_row_is_predicted_by_a_model_that_has_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[EncodedDataset] = []

    def keep(hyperparameters: object, data: EncodedDataset, setup: object) -> TestedClassifier:
        given.append(data)
        return TestedClassifier(np.zeros((len(data.test), 3)), 0.5, 1.0)

    monkeypatch.setattr(after_trials, "train_reference", keep)
    data, rows = dataset(), np.array([1, 5, 30])
    other = replace(data, train=replace(data.train, pad_id=7))
    setup: Any = None
    assert len(predict_fold(hyperparameters(), rows, data, setup)) == 3
    # Of another base model, in its tokens.
    predict_fold(hyperparameters(base_model="other"), rows, replace(data, by_base={"other": other}), setup)
    assert [fold.train.pad_id for fold in given] == [data.train.pad_id, 7]
    assert [len(fold.test) for fold in given] == [3, 3]
    others = [row for row in range(len(data.train)) if row not in rows]
    for part, numbers in ((given[0].test, rows.tolist()), (given[0].train, others)):
        texts_of_part = np.split(part.input_ids, part.offsets[1:-1])
        whole = np.split(data.train.input_ids, data.train.offsets[1:-1])
        assert all((text == whole[row]).all() for text, row in zip(texts_of_part, numbers, strict=True))
        assert part.labels.tolist() == data.train.labels[numbers].tolist()
    assert given[0].validation is data.validation
