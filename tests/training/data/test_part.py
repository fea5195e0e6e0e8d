"""A stratified part of the rows: its size, its classes, and that it is the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from lorasweep.training.data.part import part_of
from lorasweep.training.errors import SettingsError

CLASSES = np.repeat([0, 1, 2], [700, 290, 10])
VALIDATION = np.repeat([0, 1, 2], [420, 174, 6])


@pytest.mark.parametrize(
    ("proxy", "train", "validation"), [(0.5, 500, 300), (0.1, 100, 200), (40, 40, 200), (800, 800, 480)]
)
def test_the_part_has_its_share_of_rows_and_classes(proxy: float, train: int, validation: int) -> None:
    """The validation part has the training part's share, and 200 rows at least."""
    part = part_of(CLASSES, VALIDATION, proxy, seed=3)
    for rows, labels, size in ((part.train, CLASSES, train), (part.validation, VALIDATION, validation)):
        assert len(rows) == len(set(rows.tolist())) == size
        assert rows.tolist() == sorted(rows.tolist())
        counts = np.bincount(labels[rows], minlength=3)
        assert counts.min() >= 1
        assert counts / size == pytest.approx(np.bincount(labels) / len(labels), abs=0.05)


def test_few_validation_rows_are_all_taken() -> None:
    assert part_of(CLASSES, VALIDATION[::4], 0.1, 0).validation.tolist() == list(range(150))


def test_the_same_seed_draws_the_same_rows() -> None:
    first, again, other = (part_of(CLASSES, VALIDATION, 0.1, seed) for seed in (1, 1, 2))
    assert first.train.tolist() == again.train.tolist()
    assert first.validation.tolist() == again.validation.tolist()
    assert first.train.tolist() != other.train.tolist()


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        (1000, "--proxy 1000: all 1,000 training rows are no part; ask for fewer, or leave it out"),
        (0.9999, "--proxy 0.9999: all 1,000 training rows are no part; ask for fewer, or leave it out"),
        (0.002, "--proxy 0.002: 2 of 1,000 training rows are fewer than the 3 classes; ask for more"),
        (1, "--proxy 1: 1 of 1,000 training rows are fewer than the 3 classes; ask for more"),
    ],
)
def test_what_is_no_part_is_refused(proxy: float, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        part_of(CLASSES, VALIDATION, proxy, 0)
    assert str(caught.value) == message
