"""Several labels a text: the forms in which people write them, and sets of labels as texts and as a matrix.

In a frame of rows a set is one string, a JSON list of the sorted labels, so that sets are compared, counted and told
apart as single labels are. Everywhere else it is a row of a matrix with a column for each label.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lorasweep.training.data.columns import as_text, strings
from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files.tables import Table

FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
"""What a column of one label may hold; case does not count."""
UNKNOWN_FLAGS = ("", "-1", "-1.0")
"""Where nobody has said whether the label applies, as in the test rows of some competitions."""
PARSED = 100
"""Fields of text that are read as lists to see whether they are some."""
SEPARATOR = ";"
"""Between the labels of a text where predictions are written into one field, if the data had no separator."""


@dataclass(frozen=True)
class SetForm:
    """How a table writes the labels of a text.

    Attributes:
        columns: one column of lists or of separated labels, or a column of 0 and 1 for each label.
        separator: between the labels of a field; None for lists and for columns of 0 and 1.
    """

    columns: tuple[str, ...]
    separator: str | None = None


def find_form(table: Table, columns: tuple[str, ...], separator: str | None) -> SetForm | None:
    """The form of the label columns; None where a text has one label.

    Several columns are columns of 0 and 1. Of one column the values tell: lists, or text that holds a JSON or Python
    list in every row. Raises `SettingsError` for a separator beside several columns or lists.
    """
    lists = len(columns) == 1 and _holds_lists(table, columns[0])
    if separator is not None and (len(columns) > 1 or lists):
        what = f"column {columns[0]!r} holds lists" if lists else f"--label names {len(columns)} columns"
        raise SettingsError(f"--label-separator {separator!r}: {what}, which need none; leave it out")
    if separator is not None and not separator.strip():
        raise SettingsError(
            f"--label-separator {separator!r}: name the character between labels, such as ';'"
        )
    several = len(columns) > 1 or lists or separator is not None
    return SetForm(columns, separator) if several else None


def read_sets(table: Table, form: SetForm) -> list[str]:
    """The set of each row as `set_text` writes it, "" where it is unknown.

    An empty list, or an empty field of separated labels, is a text without a label. Unknown are missing values, and
    rows with an empty field or -1 in a column of 0 and 1.

    Raises:
        DataError: a column is missing, or a value is of another form; names the row.
    """
    if len(form.columns) > 1:
        return _read_flags(table, form.columns)
    (column,) = form.columns
    if form.separator is not None:
        separator = form.separator.strip()
        known = [not _missing(value) for value in table.frame[column].astype(object).tolist()]
        fields = strings(table, column)
        return [
            set_text(part.strip() for part in field.split(separator)) if one else ""
            for field, one in zip(fields, known, strict=True)
        ]
    return [
        _read_list(value, table, column, row)
        for row, value in enumerate(table.frame[column].astype(object).tolist(), start=1)
    ]


def has_labels(table: Table, form: SetForm) -> bool:
    """Whether the table has the columns, and a label in any row."""
    present = all(name in table.frame for name in form.columns)
    return present and any(text not in ("", "[]") for text in read_sets(table, form))


def set_text(labels: Iterable[str]) -> str:
    """A set of labels as one string, the same for every order; empty labels do not count."""
    return json.dumps(sorted({label for label in labels if label}), ensure_ascii=False)


def set_of(text: str) -> list[str]:
    """The labels of a set, sorted."""
    labels: list[str] = json.loads(text)
    return labels


def each_label(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows once for each of their labels, with the single one as `label`; texts without any are not in it."""
    repeated = rows.assign(label=rows["label"].map(set_of)).explode("label")
    return repeated[repeated["label"].notna()]


def renamed(sets: pd.Series[str], names: Mapping[str, str]) -> pd.Series[str]:
    """The sets with other names for their labels; one without a name is left out."""
    new = {text: set_text(names.get(label, "") for label in set_of(text)) for text in sets.unique()}
    return sets.map(new)


def without(rows: pd.DataFrame, labels: Collection[str]) -> pd.DataFrame:
    """The rows without these labels in their sets; all rows stay."""
    if not labels:
        return rows
    sets = rows["label"]
    new = {text: set_text(label for label in set_of(text) if label not in labels) for text in sets.unique()}
    return rows.assign(label=sets.map(new))


def label_matrix(sets: Iterable[str], names: Sequence[str]) -> np.ndarray:
    """1 where a text has a label: uint8, shape (rows, labels).

    Args:
        names: the labels in the order of the columns; others do not count.
    """
    index = {name: number for number, name in enumerate(names)}
    texts = list(sets)
    rows: dict[str, np.ndarray] = {}
    for text in set(texts):
        rows[text] = np.zeros(len(names), dtype=np.uint8)
        rows[text][[index[label] for label in set_of(text) if label in index]] = 1
    return np.stack([rows[text] for text in texts]) if texts else np.zeros((0, len(names)), dtype=np.uint8)


def labels_of(matrix: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    """The labels of each row of a matrix, in the order of the columns."""
    return [[names[number] for number in np.flatnonzero(row).tolist()] for row in matrix]


def _holds_lists(table: Table, column: str) -> bool:
    if column not in table.frame:
        return False
    values = [value for value in table.frame[column].astype(object).tolist() if not _missing(value)]
    values = [value for value in values if not (isinstance(value, str) and not value.strip())]
    if not values or not all(isinstance(value, str) for value in values):
        return bool(values) and all(map(_is_list, values))
    return all(value.strip()[0] == "[" and value.strip()[-1] == "]" for value in values) and any(
        _parsed(value) is not None for value in values[:PARSED]
    )


def _read_list(value: Any, table: Table, column: str, row: int) -> str:
    if _missing(value) or value == "":
        return ""
    found = list(value) if _is_list(value) else _parsed(value) if isinstance(value, str) else None
    if found is None or any(_is_list(entry) or isinstance(entry, dict) for entry in found):
        raise DataError(
            f"{table.name}, row {row}: column {column!r} holds {shown([value])}, not a list of labels as other rows "
            'do; write ["a", "b"]'
        )
    labels = (as_text(entry, table, column, row).replace("\0", "").strip() for entry in found)
    return set_text(labels)


def _read_flags(table: Table, columns: tuple[str, ...]) -> list[str]:
    fields = [[value.casefold() for value in strings(table, column, "--label")] for column in columns]
    sets = []
    for row, values in enumerate(zip(*fields, strict=True), start=1):
        for column, value in zip(columns, values, strict=True):
            if value not in FLAGS and value not in UNKNOWN_FLAGS:
                raise DataError(
                    f"{table.name}, row {row}: column {column!r} holds {shown([value])}; --label with several columns "
                    "takes 0 and 1, true and false; name one column, or write these"
                )
        unknown = any(value in UNKNOWN_FLAGS for value in values)
        chosen = (column for column, value in zip(columns, values, strict=True) if FLAGS.get(value))
        sets.append("" if unknown else set_text(chosen))
    return sets


def _parsed(text: str) -> list[Any] | None:
    """The list that a text is, in JSON or as Python writes it; None if it is none."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list):
            return value
    return None


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset | np.ndarray)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
