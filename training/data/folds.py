"""Folds of rows for cross-prediction: each row is predicted by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lorasweep.training.data.group_split import divisions
from lorasweep.training.errors import SettingsError, counted


def fold_of_rows(
    labels: np.ndarray, folds: int, seed: int, groups: Sequence[str] | None = None
) -> np.ndarray:
    """The fold of each row; the same one for the same arguments.

    Folds differ by at most one row, in all and in each class. With groups, the rows of a group share a fold, and the
    sizes are as equal as the groups let them be.

    Args:
        labels: int64, shape (rows,).
        folds: how many, at least 2.
        seed: of the draw.
        groups: the group of each row, as `--group` names it.

    Returns:
        Numbers from 0 to folds - 1; int64, shape (rows,).

    Raises:
        SettingsError: fewer than two folds, or more than there are rows or groups.
    """
    most = len(labels) if groups is None else len(set(groups))
    if not 2 <= folds <= most:
        unit = "training row" if groups is None else "group"
        raise SettingsError(
            f"--folds {folds}: ask for at least 2, and at most one for each {unit} "
            f"({counted(most, unit)} here)"
        )
    fold = np.empty(len(labels), dtype=np.int64)
    if groups is None:
        # Class after class, each in a random order: the rows of a class are dealt out one by one.
        order = np.lexsort((np.random.default_rng(seed).permutation(len(labels)), labels))
        fold[order] = np.arange(len(labels)) % folds
        return fold
    codes, _ = pd.factorize(np.asarray(groups, dtype=object), sort=True)
    for number, rows in enumerate(next(divisions(labels, codes, folds, folds, seed))):
        fold[rows] = number
    return fold


def learnable(labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Which rows have their class among the rows of the other folds: bool, shape (rows,).

    No model can know the label of another row: it would only seem to contradict it.

    Args:
        labels, fold: int64, shape (rows,).
    """
    counts = np.zeros((labels.max() + 1, fold.max() + 1), dtype=np.int64)
    np.add.at(counts, (labels, fold), 1)
    elsewhere: np.ndarray = counts.sum(axis=1)[labels] > counts[labels, fold]
    return elsewhere
