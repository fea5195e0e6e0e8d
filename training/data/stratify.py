"""Iterative stratification: parts of the rows in which each label of several a text keeps its share.

Sechidis, Tsoumakas & Vlahavas, "On the Stratification of Multi-Label Data" (ECML PKDD 2011): the rarest label is
dealt out first, each of its rows to the part that still wants most rows of that label. Here each part first gets one
row of each label, so that none is missing where there are enough; and what is dealt out may be groups of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lorasweep.training.data.label_sets import label_matrix, set_of
from lorasweep.training.errors import SettingsError
from lorasweep.training.files.split_names import TRAIN

# Rows that are looked at for the first one of a label in a part.
MOST_TRIED = 500


def stratify(
    counts: np.ndarray, sizes: np.ndarray, shares: Sequence[float], seed: int, *, exact: bool = False
) -> np.ndarray:
    """Deal rows, or groups of them, out to parts.

    Args:
        counts: rows of each label in each unit; int, shape (units, labels). Of single rows 0 and 1.
        sizes: rows of each unit; int, shape (units,).
        shares: of the rows that each part should have; they sum to 1.
        seed: of the order in which units are dealt out.
        exact: no part gets more rows than its share.

    Returns:
        Number of each unit's part; int64, shape (units,).
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(counts))
    counts, sizes = counts[order].astype(np.int64), sizes[order]
    parts = np.full(len(counts), -1, dtype=np.int64)
    # What each part still wants: rows of each label, and rows.
    wanted = np.outer(shares, counts.sum(axis=0))
    rows_wanted = np.asarray(shares, dtype=np.float64) * sizes.sum()

    def deal(unit: int, part: int) -> None:
        parts[unit] = part
        wanted[part] -= counts[unit]
        rows_wanted[part] -= sizes[unit]

    def open_parts() -> list[int]:
        free = [part for part in range(len(shares)) if rows_wanted[part] > 1e-6]
        return free if exact and free else list(range(len(shares)))

    totals = counts.sum(axis=0)
    for part in range(len(shares)):
        for label in np.argsort(totals, kind="stable"):
            having = np.flatnonzero(counts[:, label])
            if part in open_parts() and not (parts[having] == part).any():
                free = having[parts[having] < 0][:MOST_TRIED]
                if len(free):
                    # The one whose other labels are the most common: rare ones are needed elsewhere.
                    others = np.where(counts[free] > 0, totals, totals.max() + 1)
                    others[:, label] = totals.max() + 1
                    deal(int(free[others.min(axis=1).argmax()]), part)
    left = counts[parts < 0].sum(axis=0)
    while left.any():
        label = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for unit in np.flatnonzero((counts[:, label] > 0) & (parts < 0)).tolist():
            deal(unit, max(open_parts(), key=lambda part: (wanted[part, label], rows_wanted[part])))
        left = counts[parts < 0].sum(axis=0)
    for unit in np.flatnonzero(parts < 0).tolist():
        deal(unit, max(open_parts(), key=lambda part: rows_wanted[part]))
    result = np.empty_like(parts)
    result[order] = parts
    return result


def carve_sets(
    rows: pd.DataFrame, carved: Sequence[str], share: float, seed: int, group: bool = False
) -> pd.DataFrame:
    """Move training rows, or whole groups of them, into each of the `carved` splits, about `share` of each label's.

    Args:
        rows: those of `splits.divide`, with sets as labels.
    """
    if not carved:
        return rows
    train = rows.index[rows["split"] == TRAIN]
    sets = rows.loc[train, "label"]
    counts = label_matrix(sets, label_names(sets))
    units = pd.factorize(rows.loc[train, "group"], sort=True)[0] if group else np.arange(len(train))
    if group:
        summed = np.zeros((int(units.max()) + 1, counts.shape[1]), dtype=np.int64)
        np.add.at(summed, units, counts)
        counts = summed
    shares = [1 - share * len(carved), *[share] * len(carved)]
    parts = stratify(counts, np.bincount(units), shares, seed)[units]
    split = rows["split"].copy()
    for number, name in enumerate(carved, start=1):
        split.loc[train[parts == number]] = name
    return rows.assign(split=split)


def part_of_sets(matrix: np.ndarray, size: int, seed: int, flag: str) -> np.ndarray:
    """A random sample of `size` rows in which each label keeps its share, and at least one row.

    Args:
        matrix: uint8, shape (rows, labels).
        flag: for messages.

    Returns:
        A mask over the rows.

    Raises:
        SettingsError: there are more labels than rows asked for.
    """
    if size >= len(matrix):
        return np.ones(len(matrix), dtype=bool)
    labels = int(matrix.any(axis=0).sum())
    if size < labels:
        raise SettingsError(f"{flag} {size} is less than one row for each of the {labels} labels; raise it")
    shares = [size / len(matrix), 1 - size / len(matrix)]
    chosen: np.ndarray = stratify(matrix, np.ones(len(matrix)), shares, seed, exact=True) == 0
    return chosen


def label_names(sets: pd.Series[str]) -> list[str]:
    """The labels that occur in sets, sorted as texts."""
    return sorted({label for text in sets.unique() for label in set_of(text)})
