"""A table that is read a chunk at a time, and the texts in a chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from lorasweep.training.files.packed_lines import packed_errors
from lorasweep.training.files.tables import Table

CHUNK_ROWS = 2048
"""Rows read at once: enough that sorting them by length leaves batches with little padding."""


@dataclass(frozen=True)
class RowStream:
    """A table that is read a chunk at a time, as often as wanted.

    Attributes:
        name: for messages; the path as given.
        columns: names of all columns, in the file's order. A CSV file may have one twice.
        rows: as counted beforehand.
        types: Parquet's type of each column; of the others a type that holds all its values.
        header_guessed: the names are the first line of a CSV or TSV, which may have been a row.
        read: frames of at most so many rows, their values Python's own. None is a null, pd.NA an entry that
            a JSON object lacks.
    """

    name: str
    columns: tuple[str, ...]
    rows: int
    types: tuple[pa.DataType, ...]
    header_guessed: bool
    read: Callable[[int], Iterator[pd.DataFrame]]

    def heading(self) -> Table:
        """No rows, but all columns."""
        return Table(
            pd.DataFrame(columns=pd.Index(self.columns)), self.name, header_guessed=self.header_guessed
        )

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Table]:
        """The rows in order, at most so many at once. Raises `DataError` when the file has changed meanwhile."""
        first = 1
        with packed_errors(self.name):
            for frame in self.read(rows):
                # Messages count rows from the chunk's own first.
                name = self.name if first == 1 else f"{self.name}, from row {first} on"
                yield Table(frame, name, header_guessed=self.header_guessed)
                first += len(frame)


def kind_of(value: Any) -> str:
    """Type of a value, as far as a column's own goes by it."""
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return "large int"
    return type(value).__name__


def type_of(kinds: set[str]) -> pa.DataType:
    """A type for all values of a column; that of a text where they have no other in common."""
    found = kinds - {""}
    if found and found <= {"int", "float"}:
        return pa.int64() if found == {"int"} else pa.float64()
    return pa.bool_() if found == {"bool"} else pa.string()
