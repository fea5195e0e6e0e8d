"""Iterative stratification: shares of labels, sizes, and that no label is missing where there are enough rows."""

from __future__ import annotations

import numpy as np
import pytest

from lorasweep.training.data.part import part_of
from lorasweep.training.data.stratify import part_of_sets, stratify
from lorasweep.training.errors import SettingsError

SHARES = (0.8, 0.1, 0.1)


def matrix(rows: int = 1000, seed: int = 0) -> np.ndarray:
    """Labels of a half down to three hundredths of the rows, which go together; some rows have none."""
    random = np.random.default_rng(seed)
    topic = random.random((rows, 1))
    rates = np.array([0.5, 0.3, 0.1, 0.05, 0.03])
    return (random.random((rows, 5)) * 0.7 + topic * 0.3 < rates).astype(np.uint8)


def test_parts_have_the_shares_of_the_labels_and_of_the_rows() -> None:
    labels = matrix()
    parts = stratify(labels, np.ones(1000), SHARES, seed=0)
    assert np.bincount(parts) == pytest.approx([800, 100, 100], abs=2)
    total = labels.sum(axis=0)
    for part, share in enumerate(SHARES):
        assert labels[parts == part].sum(axis=0) == pytest.approx(total * share, abs=1.5)
    assert parts.tolist() == stratify(labels, np.ones(1000), SHARES, seed=0).tolist()
    assert parts.tolist() != stratify(labels, np.ones(1000), SHARES, seed=1).tolist()


def test_shares_are_nearer_than_in_a_random_split() -> None:
    labels, random = matrix(), np.random.default_rng(0)
    wanted = labels.sum(axis=0) * 0.1

    def worst(parts: np.ndarray) -> float:
        return max(float(np.abs(labels[parts == part].sum(axis=0) - wanted).max()) for part in (1, 2))

    apart = worst(random.permutation(np.repeat([0, 1, 2], [800, 100, 100])))
    assert worst(stratify(labels, np.ones(1000), SHARES, seed=0)) < apart / 2


def test_three_rows_of_a_label_are_enough_for_three_parts() -> None:
    for seed in range(20):
        labels = np.zeros((300, 4), np.uint8)
        labels[:3, 0] = labels[100:200, 1] = labels[150:250, 2] = labels[1:5, 3] = 1
        parts = stratify(labels, np.ones(300), SHARES, seed)
        assert all(labels[parts == part].any(axis=0).all() for part in range(3))


@pytest.mark.parametrize("size", [5, 7, 40, 999])
def test_a_part_has_the_size_asked_for_and_every_label(size: int) -> None:
    labels = matrix()
    chosen = part_of_sets(labels, size, 0, "--max-train-rows")
    assert chosen.sum() == size
    assert labels[chosen].any(axis=0).all()
    if size >= 40:
        assert labels[chosen].mean(axis=0) == pytest.approx(labels.mean(axis=0), abs=0.03)
    assert part_of_sets(labels, 1000, 0, "").all()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(
        SettingsError, match="--max-train-rows 4 is less than one row for each of the 5 labels"
    ):
        part_of_sets(matrix(), 4, 0, "--max-train-rows")
    with pytest.raises(
        SettingsError, match="--proxy 4: 4 of 1,000 training rows are fewer than the 5 classes"
    ):
        part_of(matrix(), matrix(300, 1), 4, 0)


def test_a_proxy_is_drawn_from_sets() -> None:
    part = part_of(matrix(), matrix(600, 1), 0.2, 3)
    assert (len(part.train), len(part.validation)) == (200, 200)
    assert matrix()[part.train].mean(axis=0) == pytest.approx(matrix().mean(axis=0), abs=0.01)


def test_groups_are_dealt_out_whole() -> None:
    random = np.random.default_rng(0)
    counts, sizes = random.integers(0, 4, (100, 3)), random.integers(4, 9, 100)
    parts = stratify(counts, sizes, SHARES, seed=0)
    rows = np.bincount(parts, weights=sizes)
    assert rows / rows.sum() == pytest.approx(SHARES, abs=0.02)
    for label in range(3):
        dealt = np.bincount(parts, weights=counts[:, label])
        assert dealt / dealt.sum() == pytest.approx(SHARES, abs=0.02)
