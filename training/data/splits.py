"""Training, validation and test splits that share no text, with every class in each.

Rows are a frame with the columns `text`, `pair`, `label` (strings) and `split`. Splits that are given stay;
a missing one is carved from the training rows, stratified, by a seed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lorasweep.training.data.group_split import (
    carve_groups,
    check_groups,
    groups_of_classes,
    incomplete_classes,
)
from lorasweep.training.data.label_sets import each_label, set_of, without
from lorasweep.training.data.stratify import carve_sets
from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files.split_names import SPLITS as SPLITS
from lorasweep.training.files.split_names import TEST as TEST
from lorasweep.training.files.split_names import TRAIN as TRAIN
from lorasweep.training.files.split_names import VALIDATION as VALIDATION

CARVED_SHARE = 0.1
"""Share of each class's rows that goes into a carved split: 80/10/10 where neither is given."""

ENOUGH_VALIDATION_ROWS = 200
"""Enough to choose a winner by: one row is half a point of accuracy."""


@dataclass(frozen=True)
class Division:
    """Rows that all have a split, in their original order, and what became of the others."""

    rows: pd.DataFrame
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason → rows."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Class too small for every split → its rows."""


def divide(
    rows: pd.DataFrame,
    given: Collection[str],
    seed: int,
    keep_small_classes: bool,
    group: str | None = None,
    sets: bool = False,
) -> Division:
    """Drop duplicate texts, leave out small classes, carve the splits that are not `given`.

    `rows["split"]` holds "train" or one of the `given` splits ("validation", "test"). Texts are duplicates if
    both columns are equal but for case and white space.

    - A given test split stays as it is: validation and training rows with one of its texts are dropped, then
      training rows with a text of a given validation split. Of duplicates among the training rows the first
      stays, so a carved split shares no text with them.
    - A class is small if it has fewer than 3 rows in all, or fewer training rows than the splits that are
      filled from them. It is left out of every split; with `keep_small_classes` its rows stay where they are.
    - A given split may hold only labels of the training rows, and (without `keep_small_classes`) must hold all
      of them: scores over other classes cannot be compared.

    With `group`, a column's name for messages, no two splits share a value of `rows["group"]`. A class is then small
    if it has too few groups, also for the splits that whole groups could be carved into; one without a training row
    is left out in any case.

    With `sets`, `rows["label"]` holds sets of labels as `label_sets.set_text` writes them. Each label of a set counts
    as a class, and the rows of one that is left out stay, without it.

    Raises `DataError` if a split has no rows or lacks a label, given splits share a group, or fewer than two classes
    remain.
    """
    dropped: dict[str, int] = {}
    carved = [split for split in (VALIDATION, TEST) if split not in given]
    if group is not None:
        check_groups(rows, group, len(carved))
    rows = distinct(rows, given, dropped)
    if group is not None:
        check_groups(rows, group, len(carved))  # a group may have had copies of other texts alone
    for split in (TRAIN, *given):
        if not (rows["split"] == split).any():
            raise DataError(
                f"the {split} split has no usable rows; add rows to it or leave the split to lorasweep"
            )
    by_class = each_label(rows) if sets else rows
    at_least_two(by_class["label"].unique().tolist(), {})
    # Sorted, so that the counts of a class do not depend on which rows come first.
    counts = pd.crosstab(by_class["label"], by_class["split"]).sort_index()
    counts = counts.reindex(columns=[TRAIN, *given], fill_value=0)
    for split in given:
        unknown = counts.index[(counts[split] > 0) & (counts[TRAIN] == 0)].tolist()
        if unknown:
            raise DataError(
                f"the {split} split holds {_labels(unknown)} that no usable training row has; add such "
                "training rows or remove these"
            )
    spread = (
        counts[TRAIN] if group is None else groups_of_classes(by_class).reindex(counts.index, fill_value=0)
    )
    small = (counts.sum(axis=1) < len(SPLITS)) | (spread < 1 + len(carved))
    left_out: dict[str, int] = {}
    if not keep_small_classes:
        for split in given:
            absent = counts.index[~small & (counts[split] == 0)].tolist()
            if absent:
                raise DataError(
                    f"the {split} split has no row with {_labels(absent)} of the training rows; add rows, or "
                    "allow it with --keep-small-classes"
                )
        left_out = {str(label): int(count) for label, count in counts[small].sum(axis=1).items()}
        rows = without(rows, left_out) if sets else rows[~rows["label"].isin(left_out)]
        at_least_two(counts.index[~small].tolist(), left_out)
    if group is None and not sets:
        rows = _carve(rows, carved, seed)
    else:
        rows = (
            carve_sets(rows, carved, CARVED_SHARE, seed, group is not None)
            if sets
            else carve_groups(rows, carved, CARVED_SHARE, seed)
        )
        by_class = each_label(rows) if sets else rows
        missing = incomplete_classes(by_class, (TRAIN,) if keep_small_classes else (TRAIN, *carved))
        uncarved = by_class.loc[by_class["label"].isin(missing), "label"].value_counts()
        left_out |= {label: int(uncarved[label]) for label in missing}
        rows = without(rows, missing) if sets else rows[~rows["label"].isin(missing)]
        at_least_two(list(set(by_class["label"]) - set(missing)), left_out)
    if sets:
        differing_sets(rows)
    unit = "rows" if group is None else "groups"
    for split in carved:
        if not (rows["split"] == split).any():
            raise DataError(
                f"no class has the {1 + len(carved)} training {unit} from which a {split} split can be carved; "
                "add rows or name a file with that split"
            )
    return Division(rows, dropped, left_out)


def stratified_part(labels: pd.Series[str], size: int, seed: int, flag: str) -> np.ndarray:
    """A random sample of `size` rows in which each class keeps its share, and at least one row.

    Returns a mask over `labels`. Each class gets one row, and the rest in proportion to its other rows, by
    largest remainder. Raises `SettingsError`, naming `flag`, for fewer rows than classes.
    """
    codes, counts = _codes(labels)
    if size >= len(codes):
        return np.ones(len(codes), dtype=bool)
    if size < len(counts):
        raise SettingsError(
            f"{flag} {size} is less than one row for each of the {len(counts)} classes; raise it"
        )
    part, remainder = np.divmod((size - len(counts)) * (counts - 1), len(codes) - len(counts))
    part[np.argsort(-remainder, kind="stable")[: size - len(counts) - int(part.sum())]] += 1
    mask: np.ndarray = _rank_in_class(codes, seed) < (part + 1)[codes]
    return mask


def distinct(rows: pd.DataFrame, given: Collection[str], dropped: dict[str, int]) -> pd.DataFrame:
    """Rows without duplicate texts, as `divide` describes; adds to `dropped` how many went and why."""
    rows = rows.assign(key=pd.factorize(np.array(text_keys(rows), dtype=object))[0])
    for held_out in (TEST, VALIDATION):
        if held_out in given:
            before = (TRAIN,) if held_out == VALIDATION else (TRAIN, VALIDATION)
            shared = rows["split"].isin(before) & rows["key"].isin(rows.loc[rows["split"] == held_out, "key"])
            rows = _without(rows, shared, f"text also in the {held_out} split", dropped)
    train = rows[rows["split"] == TRAIN]
    again = train.duplicated("key")
    relabelled = again & (train.groupby("key")["label"].transform("first") != train["label"])
    for mask, reason in (
        (again & ~relabelled, "same text again"),
        (relabelled, "same text under another label"),
    ):
        rows = _without(rows, mask.reindex(rows.index, fill_value=False), reason, dropped)
    return rows.drop(columns="key")


def text_keys(rows: pd.DataFrame) -> list[str]:
    """What is equal for rows of the same text, whatever its case and blanks; of the columns `text` and `pair`."""
    # NUL separates the columns: it is not white space, and no cleaned text holds it.
    return [
        " ".join(f"{text} \0 {pair}".casefold().split())
        for text, pair in zip(rows["text"].tolist(), rows["pair"].tolist(), strict=True)
    ]


def _without(rows: pd.DataFrame, drop: pd.Series[bool], reason: str, dropped: dict[str, int]) -> pd.DataFrame:
    if drop.any():
        dropped[reason] = int(drop.sum())
    return rows[~drop]


def _carve(rows: pd.DataFrame, carved: list[str], seed: int) -> pd.DataFrame:
    """Give each carved split a tenth of every class's training rows, and at least one."""
    split = rows["split"].copy()
    train = rows.loc[split == TRAIN, "label"]
    codes, counts = _codes(train)
    # train_test_split(stratify=...) may leave a class of few rows out of the small part; this does not.
    sizes = np.maximum(1, np.floor(counts * CARVED_SHARE + 0.5)).astype(np.int64)
    sizes[counts < 1 + len(carved)] = 0
    part = _rank_in_class(codes, seed) // np.maximum(sizes, 1)[codes]
    for number, name in enumerate(carved):
        split.loc[train.index[(part == number) & (sizes[codes] > 0)]] = name
    return rows.assign(split=split)


def _codes(labels: pd.Series[str]) -> tuple[np.ndarray, np.ndarray]:
    """Each row's class as an index into the sorted classes, and the rows of each class."""
    codes, _ = pd.factorize(labels, sort=True)
    return codes, np.bincount(codes)


def _rank_in_class(codes: np.ndarray, seed: int) -> np.ndarray:
    """Each row's rank, from 0, in a random order of its class's rows."""
    order = np.random.default_rng(seed).permutation(len(codes))
    shuffled = pd.Series(codes[order])
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = shuffled.groupby(shuffled).cumcount().to_numpy()
    return rank


def _labels(labels: list[str]) -> str:
    return f"the label {shown(labels)}" if len(labels) == 1 else f"{len(labels)} labels ({shown(labels, 8)})"


def at_least_two(labels: list[str], left_out: dict[str, int]) -> None:
    """Raise `DataError` for fewer than two labels; `left_out` are those that were left out before."""
    if len(labels) >= 2:
        return
    after = f" once classes too small to split are left out ({shown(list(left_out), 8)})" if left_out else ""
    found = f"the only label is {shown(labels)}" if labels else "no label remains"
    raise DataError(f"{found}{after}; a classifier needs rows of at least two classes")


def differing_sets(rows: pd.DataFrame) -> None:
    """Raise `DataError` where all texts have the same labels."""
    if rows["label"].nunique() == 1:
        raise DataError(
            f"every text has the same labels ({shown(set_of(rows['label'].iloc[0]))}); a classifier needs texts that "
            "differ in them"
        )
