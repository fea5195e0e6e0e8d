"""Which columns hold the texts and the labels, and their values as clean strings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files import delimiters
from lorasweep.training.files.tables import Table

TEXT_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("headline", "short_description"),
    ("headline",),
    ("title", "description"),
    ("title", "text"),
    ("text",),
    ("sentence",),
    ("review",),
    ("title",),
)
"""Recognised as the texts when no column is named; the first that is present: HuffPost's, then usual ones."""

LABEL_COLUMNS = (("category", "label", "class"), ("labels", "target", "sentiment"))
DATE_COLUMNS = (("date",),)
"""Recognised when no column is named, the second names where none of the first is present; a table with two of
them is refused, not guessed at."""


def find_text(table: Table, text: tuple[str, ...], taken: Sequence[str] = ()) -> tuple[str, ...]:
    """The one or two text columns: those named in `text`, else recognised among the columns not in `taken`.

    Recognition ignores case. Raises `SettingsError` for more than two names or a name given twice, `DataError`
    for a column that is missing or appears twice; both list the columns present.
    """
    if len(text) > 2 or len(set(text)) < len(text):
        raise SettingsError(f"--text {shown(text)}: name one column, or two to be read as a pair")
    if text:
        return tuple(_present(table, name, "--text") for name in text)
    free = {name.casefold(): name for name in _names(table) if name not in taken}
    for names in TEXT_COLUMNS:
        if all(name in free for name in names):
            return tuple(_present(table, free[name], "--text") for name in names)
    raise DataError(f"{table.name}: no text column recognised, name it with --text; {_listed(table)}")


def find_label(table: Table, label: str | None, taken: Sequence[str] = ()) -> str:
    """The label column: `label`, else recognised among the columns not in `taken`; raises `DataError`."""
    return _find(table, label, "label", LABEL_COLUMNS, taken)


def find_labels(table: Table, label: tuple[str, ...], taken: Sequence[str] = ()) -> tuple[str, ...]:
    """The label columns, as `find_label` finds one; raises `SettingsError` for a name given twice."""
    if len(set(label)) < len(label):
        raise SettingsError(f"--label {shown(label)}: name each column once")
    if len(label) > 1:
        return tuple(_present(table, name, "--label") for name in label)
    return (find_label(table, label[0] if label else None, taken),)


def find_date(table: Table, date: str | None, taken: Sequence[str] = ()) -> str:
    """The date column: `date`, else recognised among the columns not in `taken`; raises `DataError`."""
    return _find(table, date, "date", DATE_COLUMNS, taken)


def _find(
    table: Table, name: str | None, kind: str, usual: tuple[tuple[str, ...], ...], taken: Sequence[str]
) -> str:
    flag = f"--{kind}"
    if name is not None:
        return _present(table, name, flag)
    present = [column for column in _names(table) if column not in taken]
    found = ([column for column in present if column.casefold() in names] for names in usual)
    free = next(filter(None, found), [])
    if len(free) > 1:
        raise DataError(f"{table.name}: {shown(free)} could each be the {kind}; choose one with {flag}")
    if not free:
        raise DataError(f"{table.name}: no {kind} column recognised, name it with {flag}; {_listed(table)}")
    return _present(table, free[0], flag)


def strings(table: Table, column: str, flag: str = "") -> list[str]:
    """A column's values as stripped strings without NULs, "" where a value is missing.

    Whole numbers lose their ".0" (integer labels with gaps are kept as floats), booleans become "True" and
    "False". Raises `DataError` for a column that is missing and for values that are lists or objects.
    """
    series = table.frame[_present(table, column, flag)]
    if isinstance(series.dtype, pd.StringDtype):
        values: list[Any] = series.fillna("").tolist()
    else:
        values = series.astype(object).tolist()
        if set(map(type, values)) != {str}:
            values = [as_text(value, table, column, row) for row, value in enumerate(values, start=1)]
    return [value.replace("\0", "").strip() for value in values]


def texts_and_pairs(table: Table, columns: tuple[str, ...]) -> tuple[list[str], list[str] | None]:
    """Texts of one or two columns, row by row; "" where a row has none.

    If one of two columns is empty in a row, the other is its text, as in training.
    """
    texts = strings(table, columns[0], "--text")
    if len(columns) == 1:
        return texts, None
    return first_of_two(texts, strings(table, columns[1], "--text"))


def first_of_two(texts: Sequence[str], pairs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Two texts a row, as a model reads them: where the first is empty, the second takes its place."""
    seconds = [pair if text else "" for text, pair in zip(texts, pairs, strict=True)]
    return [text or pair for text, pair in zip(texts, pairs, strict=True)], seconds


def as_text(value: Any, table: Table, column: str, row: int) -> str:
    """One value as `strings` gives it, but for its blanks; the other arguments are for messages."""
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(float(value))
    if isinstance(value, list | tuple | set | dict | np.ndarray):
        raise DataError(
            f"{table.name}, row {row}: column {column!r} holds {shown([value])}, not one text or label; "
            "write single values into it or name another column"
        )
    return str(value)


def _names(table: Table) -> list[str]:
    return [str(name) for name in table.frame.columns]


def _listed(table: Table) -> str:
    hint = ""
    if table.header_guessed:
        hint = (
            delimiters.hint(_names(table))
            or "; if the file has no header line, name its columns with --columns"
        )
    return f"columns present: {shown(_names(table))}{hint}"


def _present(table: Table, name: str, flag: str) -> str:
    names = _names(table)
    count = names.count(name)
    if count == 1:
        return name
    named = f" ({flag})" if flag else ""
    problem = "no column" if count == 0 else f"{count} columns"
    cut = next((present for present in names if name in map(str.strip, present.split(","))), name)
    # A list of names is cut at its commas.
    quoted = (
        f"; for the column {cut!r} quote the name twice: {flag} '\"{cut}\"'" if cut != name and flag else ""
    )
    raise DataError(f"{table.name}: {problem} {name!r}{named}; {_listed(table)}{quoted}")
