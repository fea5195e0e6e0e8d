"""A split by date: older rows for training, the newest for the test, as for a classifier of tomorrow's texts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lorasweep.training.data.columns import strings
from lorasweep.training.data.label_sets import each_label, without
from lorasweep.training.data.splits import (
    CARVED_SHARE,
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    Division,
    at_least_two,
    differing_sets,
    distinct,
)
from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.tables import MAX_BAD_SHARE, Table

MOST_OFF = 2.0
"""Days are kept whole as long as no split is more than this many times larger or smaller than wanted."""


def divide_by_date(rows: pd.DataFrame, where: str, sets: bool = False) -> Division:
    """Put the newest tenth of the rows into test, the tenth before it into validation, the rest into training.

    `rows["date"]` holds no missing times; rows are returned from the oldest to the newest. Duplicate texts are
    those of `splits.divide`; the oldest stays, so that no split repeats an old text. Rows of one day stay
    together, or rows of one time where there are too few days for splits of that size. A class without a
    training row is left out, since it cannot be learnt; one with training rows alone stays. `sets` are those of
    `splits.divide`.

    Raises `DataError`, naming the column by `where`, for fewer than three different dates, an empty split, or
    fewer than two classes in training.
    """
    dropped: dict[str, int] = {}
    rows = distinct(rows.sort_values("date", kind="stable").assign(split=TRAIN), (), dropped)
    first, second = _cuts(rows["date"], where)
    split = np.repeat(SPLITS, [first, second - first, len(rows) - second])
    rows = rows.assign(split=split.astype(object))
    by_class = each_label(rows) if sets else rows
    trained = set(by_class.loc[by_class["split"] == TRAIN, "label"])
    at_least_two(sorted(trained), {})
    unknown = by_class.loc[~by_class["label"].isin(trained), "label"]
    left_out = {str(label): int(count) for label, count in unknown.value_counts().sort_index().items()}
    rows = without(rows, left_out) if sets else rows.drop(index=unknown.index)
    if sets:
        differing_sets(rows[rows["split"] == TRAIN])
    for name in (VALIDATION, TEST):
        if not (rows["split"] == name).any():
            raise DataError(
                f"{where}: no row of the {name} split has a label of the older, training rows; "
                "split at random, or add rows"
            )
    return Division(rows, dropped, left_out)


def undated(dates: pd.Series[pd.Timestamp], table: Table, column: str) -> int:
    """Number of rows without a readable date; more than a few raise `DataError`, naming the first.

    Args:
        dates: of the rows that count, indexed by their number in the table from 0.
    """
    missing = dates.index[dates.isna()].tolist()
    if len(missing) > MAX_BAD_SHARE * len(dates):
        value = strings(table, column)[missing[0]]
        raise DataError(
            f"{table.name}, row {missing[0] + 1}: column {column!r} holds {shown([value])}; {len(missing):,} of "
            f"{len(dates):,} rows have no readable date, more than {MAX_BAD_SHARE:.0%}: write dates as "
            "2018-02-28, or name another column with --date"
        )
    return len(missing)


def day_spans(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """First and last day of each split, as ISO dates."""
    dates = rows["date"].groupby(rows["split"])
    first, last = dates.min().dt.strftime("%Y-%m-%d"), dates.max().dt.strftime("%Y-%m-%d")
    return {split: (str(first[split]), str(last[split])) for split in SPLITS}


def _cuts(dates: pd.Series[pd.Timestamp], where: str) -> tuple[int, int]:
    """Rows before the validation split, and before the test split; `dates` are sorted."""
    rows = len(dates)
    cuts = None
    for units in (dates.dt.floor("D"), dates):
        # A cut is only possible where one day ends and the next begins.
        ends = np.cumsum(units.value_counts(sort=False).sort_index().to_numpy())[:-1]
        if len(ends) < len(SPLITS) - 1:
            continue
        second = _nearest(ends[1:], rows * (1 - CARVED_SHARE))
        first = _nearest(ends[ends < second], second - rows * CARVED_SHARE)
        cuts = first, second
        sizes = (second - first, rows - second)
        if all(1 / MOST_OFF <= size / (rows * CARVED_SHARE) <= MOST_OFF for size in sizes):
            break
    if cuts is None:
        raise DataError(
            f"{where} holds {dates.nunique()} different dates, and a split by date needs three; "
            "name another column with --date, or split at random"
        )
    return cuts


def _nearest(ends: np.ndarray, wanted: float) -> int:
    return int(ends[np.abs(ends - wanted).argmin()])
