"""Splits that share no group: the rows of an author, a patient or a story all lie on one side.

Rows are those of `splits.divide`, with a column `group`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from lorasweep.training.errors import DataError, counted, shown
from lorasweep.training.files.split_names import TRAIN

STRATIFIED_GROUPS = 1000
"""Groups that scikit-learn stratifies in a few seconds. Random folds of more groups are alike enough."""

TRIES = 5
"""Random divisions into folds, of which the best folds are taken."""


def check_groups(rows: pd.DataFrame, column: str, carved: int) -> None:
    """Refuse splits that share a group, and fewer groups than splits.

    Args:
        column: of the groups, for messages.
        carved: number of splits that are to be carved from the training rows.

    Raises:
        DataError: names the first such group and its splits, or the groups that there are.
    """
    splits = rows.groupby("group", sort=False)["split"].unique()
    shared = splits[splits.map(len) > 1]
    if len(shared):
        more = f", and {counted(len(shared) - 1, 'other group')}, too" if len(shared) > 1 else ""
        both = " and ".join(shared.iloc[0])
        raise DataError(
            f"--group {column}: {shown([shared.index[0]])} has rows in the splits {both}{more}; "
            "keep each group in one split, or leave the splits to lorasweep"
        )
    names = rows.loc[rows["split"] == TRAIN, "group"].unique().tolist()
    if len(names) < 1 + carved:
        raise DataError(
            f"--group {column}: the rows to split have {counted(len(names), 'group')} ({shown(names)}), and "
            f"{1 + carved} splits need one each; name another column"
        )


def groups_of_classes(rows: pd.DataFrame) -> pd.Series[int]:
    """The number of groups in which each class has training rows."""
    train = rows[rows["split"] == TRAIN]
    return train.groupby("label")["group"].nunique()


def carve_groups(rows: pd.DataFrame, carved: Sequence[str], share: float, seed: int) -> pd.DataFrame:
    """Move whole groups of the training rows into each of the `carved` splits, about `share` of the rows each.

    The training rows are divided into folds of whole groups. Each split gets the fold with which most classes are in
    every split, and of these the one whose size and whose shares of the classes are nearest to what they should be.
    Few or unequal groups make splits of other sizes.
    """
    train = rows.index[rows["split"] == TRAIN]
    labels, _ = pd.factorize(rows.loc[train, "label"], sort=True)
    groups, _ = pd.factorize(rows.loc[train, "group"], sort=True)
    split = rows["split"].copy()
    if not carved:
        return rows
    best: tuple[tuple[float, ...], list[np.ndarray]] | None = None
    for folds in divisions(labels, groups, round(1 / share), 1 + len(carved), seed):
        counts = np.array([np.bincount(labels[fold], minlength=labels.max() + 1) for fold in folds])
        for chosen in permutations(range(len(folds)), len(carved)):
            cost = _cost(counts, chosen, share)
            if best is None or cost < best[0]:
                best = cost, [folds[number] for number in chosen]
    assert best is not None
    for name, fold in zip(carved, best[1], strict=True):
        split.loc[train[fold]] = name
    return rows.assign(split=split)


def incomplete_classes(rows: pd.DataFrame, splits: Sequence[str]) -> list[str]:
    """The classes that lack rows in one of these splits, sorted."""
    counts = pd.crosstab(rows["label"], rows["split"]).reindex(columns=list(splits), fill_value=0)
    return [str(label) for label in counts.index[(counts == 0).any(axis=1)]]


def divisions(
    labels: np.ndarray, groups: np.ndarray, folds: int, least: int, seed: int
) -> Iterator[list[np.ndarray]]:
    """Row numbers of each fold of several divisions: as many folds as wanted, or as can be, but `least`."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    number, most = int(groups.max()) + 1, int(np.bincount(labels).max())
    # The largest class needs as many rows as there are folds to be stratified.
    stratified = number <= STRATIFIED_GROUPS and most >= least
    kind = StratifiedGroupKFold if stratified else GroupKFold
    splits = min(folds, number, most) if stratified else min(folds, number)
    for one in range(TRIES):
        division = kind(n_splits=splits, shuffle=True, random_state=seed + one)
        with warnings.catch_warnings():
            # Classes with fewer rows than folds are named by the plan.
            warnings.simplefilter("ignore", UserWarning)
            yield [fold for _, fold in division.split(labels, labels, groups)]


def _cost(counts: np.ndarray, chosen: Sequence[int], share: float) -> tuple[float, ...]:
    """What is wrong with these folds as the carved splits, the worst first: classes that cannot be learnt, classes
    that a split lacks, and the distance from the wanted size and shares of the classes.
    """
    total = counts.sum(axis=0)
    carved = counts[list(chosen)]
    left = total - carved.sum(axis=0)
    sizes = carved.sum(axis=1)
    size = np.abs(sizes / total.sum() - share) / share
    shares = np.abs(carved / np.maximum(sizes, 1)[:, None] - total / total.sum()).sum(axis=1)
    return float((left == 0).sum()), float((carved == 0).sum()), float(size.sum() + shares.sum())
