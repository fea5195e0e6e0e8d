"""Baselines that need no neural network, on rows where their scores are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from lorasweep.training.data.dataset import Dataset, Texts
from lorasweep.training.scores.baselines import linear_model, majority_class
from lorasweep.training.scores.scores import score

LABELS = ("a", "b", "c")


def texts(rows: int, seed: int, pair: bool = False) -> Texts:
    """Each row has a word of its class, half of the time only in its second text; class 0 is the largest."""
    random = np.random.default_rng(seed)
    labels = random.choice(2, size=rows, p=[0.7, 0.3])
    words = [f"news{random.integers(9)} word{label}" for label in labels]
    second = [f"more word{label}" for label in labels]
    return Texts(["news"] * rows if pair else words, second if pair else None, labels.astype(np.int64))


def dataset(pair: bool = False) -> Dataset:
    """Two classes that a word tells apart, and one that has no training row."""
    return Dataset(
        train=texts(80, 0, pair), validation=texts(40, 1, pair), test=texts(60, 2, pair),
        label_names=LABELS, text_columns=("text",), label_column="label", source="made", fingerprint="x",
        rows_read=180, dropped={}, left_out_classes={},
    )  # fmt: skip


def test_the_majority_class_knows_the_shares_alone() -> None:
    data = dataset()
    found = majority_class(data)
    assert found.shape == (60, 3)
    assert np.exp(found).sum(axis=1) == pytest.approx(1.0)
    scores = score(found, data.test.labels)
    assert scores.accuracy == pytest.approx((data.test.labels == 0).mean())
    assert np.isfinite(scores.loss)


@pytest.mark.parametrize("pair", [False, True])
def test_a_linear_model_learns_words_of_both_texts(pair: bool) -> None:
    data = dataset(pair)
    found = linear_model(data)
    assert found.shape == (60, 3)
    scores = score(found, data.test.labels)
    assert scores.accuracy == 1.0
    assert np.isfinite(scores.loss)
    assert (found.argmax(axis=1) != 2).all()
