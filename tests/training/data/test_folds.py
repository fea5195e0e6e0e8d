"""Folds: each row in one of them, classes in proportion, groups whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lorasweep.training.data.folds import fold_of_rows, learnable
from lorasweep.training.data.load import load_dataset
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import DataSettings


def test_folds_are_equal_in_size_and_in_classes() -> None:
    labels = np.repeat([0, 1, 2], [101, 23, 4])
    fold = fold_of_rows(labels, 5, seed=0)
    sizes = np.bincount(fold, minlength=5)
    assert sizes.max() - sizes.min() <= 1
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (fold == fold_of_rows(labels, 5, seed=0)).all()
    assert (fold != fold_of_rows(labels, 5, seed=1)).any()


@pytest.mark.parametrize("number", [12, 1100])
def test_a_group_is_in_one_fold(number: int) -> None:
    random = np.random.default_rng(0)
    groups = random.permutation([f"author {n}" for n in range(number)] * 4)
    labels = random.integers(0, 3, len(groups))
    fold = fold_of_rows(labels, 4, 0, groups.tolist())
    assert sorted(set(fold)) == [0, 1, 2, 3]
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    assert (fold == fold_of_rows(labels, 4, 0, groups.tolist())).all()


@pytest.mark.parametrize(("folds", "groups"), [(1, None), (11, None), (4, ["a", "b", "c"] * 3 + ["a"])])
def test_folds_that_cannot_be_are_refused(folds: int, groups: list[str] | None) -> None:
    with pytest.raises(SettingsError, match=rf"--folds {folds}: ask for at least 2, and at most") as caught:
        fold_of_rows(np.arange(10) % 2, folds, 0, groups)
    assert ("(3 groups here)" if groups else "(10 training rows here)") in str(caught.value)


def test_a_class_of_one_fold_cannot_be_learnt() -> None:
    labels, fold = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 0, 1, 1])
    assert learnable(labels, fold).tolist() == [True, True, False, False, False]


def test_a_data_sets_rows_know_their_group(tmp_path: Path) -> None:
    lines = ["text,label,author", *(f"text {n},{n % 2},by {n // 4}" for n in range(160))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    train = load_dataset(DataSettings(path=str(tmp_path / "rows.csv"), group="author"), seed=0).train
    assert train.group == [f"by {int(text.split()[1]) // 4}" for text in train.text]
    assert load_dataset(DataSettings(path=str(tmp_path / "rows.csv")), seed=0).train.group is None
