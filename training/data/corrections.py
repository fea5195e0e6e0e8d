"""Labels of training rows that a person has corrected, in a file as `lorasweep check-labels` writes it."""

from __future__ import annotations

import csv

import pandas as pd

from lorasweep.training.data.columns import strings
from lorasweep.training.data.labels import known_labels
from lorasweep.training.data.splits import text_keys
from lorasweep.training.errors import DataError, counted, shown
from lorasweep.training.files.delimiters import USUAL
from lorasweep.training.files.split_names import TRAIN
from lorasweep.training.files.tables import TABLES, RowStream, Table
from lorasweep.training.files.unpacked import find_source
from lorasweep.training.files.whole_tables import kind_of, read_table

TEXT, SECOND_TEXT, CORRECT = "text", "second_text", "correct"
"""Columns of the file: the text, the second one of a pair, and the right label, empty where it need not change."""

SHOWN = 5
"""Texts that a note names."""


def correct_labels(rows: pd.DataFrame, path: str) -> tuple[pd.DataFrame, list[str]]:
    """Training rows with the labels that a file gives them; rows of other splits stay as they are.

    Rows are found by their texts, whatever their case and blanks. A correction may name a label from before or after
    merging.

    Args:
        rows: with the columns `text`, `pair`, `label`, `original` and `split`.
        path: a table with the columns `text`, `correct` and, for pairs, `second_text`.

    Returns:
        The rows, and notes: how many labels changed, and which corrections match no training row.

    Raises:
        DataError: the file cannot be read, names a label that the data do not have, corrects a text to two labels, has
            nothing to correct, matches no training row, or leaves a class without a training row.
    """
    wanted = _read(path)
    known = dict(zip(rows["original"], rows["label"], strict=True)) | {name: name for name in rows["label"]}
    names = known_labels(set(wanted["correct"]), known)
    for number, correct in zip(wanted["number"], wanted["correct"], strict=True):
        if correct not in names:
            raise DataError(
                f"--corrections {path}, row {number}: {correct!r} is no label of the data; there are: "
                f"{shown(sorted(known), 12)}"
            )
    wanted["correct"] = wanted["correct"].map(names)
    twice = wanted.groupby("key")["correct"].nunique()
    if (twice > 1).any():
        both = wanted[wanted["key"] == twice.idxmax()]
        raise DataError(
            f"--corrections {path}: rows {', '.join(map(str, both['number']))} correct the same text to "
            f"{shown(both['correct'].unique().tolist())}; keep one of them"
        )
    by_key = dict(zip(wanted["key"], wanted["correct"], strict=True))
    train = rows.index[rows["split"] == TRAIN]
    keys = pd.Series(text_keys(rows.loc[train]), index=train)
    found = keys[keys.isin(by_key)]
    lost = wanted[~wanted["key"].isin(found)]
    if found.empty:
        raise DataError(
            f"--corrections {path}: none of its {counted(len(wanted), 'corrected text')} is a training row "
            f"({shown(lost['text'].tolist(), 2)}); give the data that it was made from, with the same --seed"
        )
    given = found.map(by_key)
    merged = given.map(known)
    changed = int((merged != rows.loc[found.index, "label"]).sum())
    corrected = rows.copy()
    corrected.loc[found.index, "label"] = merged
    # A class that merging made has no label of its own from before: its most frequent one stands for it.
    usual = rows.groupby("label")["original"].agg(lambda labels: labels.mode().iloc[0])
    originals = set(rows["original"])
    corrected.loc[found.index, "original"] = given.where(given.isin(originals), given.map(usual))
    _check_classes(corrected, path)
    notes = [f"{path}: {counted(changed, 'label')} of the training rows corrected"]
    if len(lost):
        notes.append(
            f"{path}: {counted(len(lost), 'correction')} without a training row of this text: "
            f"{shown(lost['text'].tolist(), SHOWN)}"
        )
    return corrected, notes


def _check_classes(rows: pd.DataFrame, path: str) -> None:
    left = set(rows.loc[rows["split"] == TRAIN, "label"])
    if gone := sorted(set(rows["label"]) - left):
        raise DataError(
            f"--corrections {path}: no training row is left of {shown(gone)}; merge that label with another one "
            "(--merge-labels), or leave its rows out of the data"
        )


def _read(path: str) -> pd.DataFrame:
    """The file's filled rows: `number` in the file, `text`, `pair`, `correct`, and `key` to find the text by."""
    table = _table(path)
    columns = set(map(str, table.frame.columns))
    texts = strings(table, TEXT)
    pairs = strings(table, SECOND_TEXT) if SECOND_TEXT in columns else [""] * len(texts)
    rows = pd.DataFrame(
        {"number": range(1, len(texts) + 1), "text": texts, "pair": pairs, "correct": strings(table, CORRECT)}
    )
    rows = rows[rows["correct"] != ""]
    if rows.empty:
        raise DataError(
            f"--corrections {path}: the column {CORRECT!r} is empty in every row; write the right label of wrong rows "
            "into it"
        )
    return rows.assign(key=text_keys(rows))


def _table(path: str) -> Table:
    """The file, also with the semicolons or tabs that a spreadsheet may have saved a CSV with."""
    delimiter = None
    if kind_of(path) == "file":
        stream = RowStream(find_source(path, TABLES), ())
        if stream.format.is_delimited:
            with stream.source.text() as lines:
                header = next(iter(lines), "")
            cut = (mark for mark in USUAL if CORRECT in next(csv.reader([header], delimiter=mark), []))
            delimiter = next(cut, None)
    return read_table(path, delimiter=delimiter)
