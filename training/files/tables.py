"""Any table that a user may bring: a file as a whole or a chunk at a time, or a DataFrame.

The format is told by the file's suffix and never guessed from its content, except that a JSON file may hold
an object a line, one array of objects, or one object of such arrays. Whatever is wrong with a file raises a
`DataError` of one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from lorasweep.training.errors import DataError
from lorasweep.training.files.cells import mended
from lorasweep.training.files.delimiters import as_delimiter
from lorasweep.training.files.download import address_name, as_address
from lorasweep.training.files.encodings import UTF8, as_encoding
from lorasweep.training.files.formats import FORMATS, TEXT, delimited
from lorasweep.training.files.unpacked import Source, find_source, table_format

TABLES = tuple(suffix for suffix in FORMATS if suffix != TEXT)

MAX_BAD_SHARE = 0.05
"""Share of a JSON file's rows that may be unreadable before the file itself is refused."""

CHUNK_ROWS = 2048
"""Rows read at once: enough that sorting them by length leaves batches with little padding."""

SCAN_ROWS = 16_384
"""Rows read at once where no model is at work."""


@dataclass(frozen=True)
class Table:
    """Rows, and what a message about them needs."""

    frame: pd.DataFrame
    name: str
    """The path as given; for a zip followed by the table's name in it."""
    unparsable: int = 0
    """JSON rows that were skipped because they do not parse or are not objects."""
    header_guessed: bool = False
    """The column names are the first line of a CSV or TSV, which may have been a row."""
    notes: tuple[str, ...] = ()
    """What was found out about the file and may be wrong, a sentence each."""


class RowStream:
    """A file that is read a chunk at a time, as often as needed.

    Attributes:
        source: the file.
        columns: names of all columns, in the file's order. A CSV file may have one twice.
        types: Parquet's type of each column; of the others a type that holds all its values.
        rows: rows of the file; like `columns` and `types` it is found by `scan`.
        unreadable: rows of a JSON file that were skipped.
        header_guessed: the columns' names are the first line of a CSV or TSV, which may have been a row.
        notes: what was found out about the file and may be wrong, a sentence each.
    """

    def __init__(
        self,
        source: Source,
        given: tuple[str, ...],
        delimiter: str | None = None,
        encoding: str | None = None,
        sheet: str | None = None,
    ) -> None:
        self.source, self.given, self.format = source, given, FORMATS[source.suffix]
        self.notes: tuple[str, ...] = (source.note,) if source.note else ()
        if delimiter is not None:
            if not self.format.is_delimited:
                raise DataError(f"{source.name}: --delimiter is for CSV and TSV files; leave it out")
            self.format = delimited(as_delimiter(delimiter))
        if sheet is not None:
            if not self.format.has_sheets:
                raise DataError(f"{source.name}: --sheet is for workbooks (.xlsx); leave it out")
            self.source = replace(source, part=sheet)
        self.columns: tuple[str, ...] = ()
        self.types: tuple[pa.DataType, ...] = ()
        self.rows = self.unreadable = 0
        self.header_guessed = self.format.has_header_line and not given
        if given and not self.format.has_header_line:
            raise DataError(
                f"{source.name}: --columns is for CSV and TSV without a header line; this file names its own "
                "columns"
            )
        if not self.format.is_text:
            if encoding is not None:
                raise DataError(f"{source.name}: --encoding is for text files; leave it out")
        elif source.encoding:
            pass
        elif encoding is not None:
            self.source = replace(self.source, encoding=as_encoding(encoding))
        else:
            # Once, not at each of several readings.
            self.source = replace(self.source, encoding=source.guessed_encoding())
            if self.source.encoding != UTF8:
                self.notes += (
                    f"{source.name} is read as {self.source.encoding}, by its bytes; "
                    "if letters are wrong, name another --encoding",
                )

    def frames(self, size: int, max_bad_share: float = 0.0) -> Iterator[pd.DataFrame]:
        """The file's rows from the beginning, as its reader gives them: a chunk of JSON may lack columns.

        Raises `DataError` for a file that cannot be read, too many unreadable rows, or no row.
        """
        rows, unreadable, first = 0, 0, ""
        for part in self.format.read(self.source, size, self.given):
            if isinstance(part, str):
                unreadable, first = unreadable + 1, first or part
            elif len(part):
                rows += len(part)
                yield part
        total = rows + unreadable
        if unreadable > max_bad_share * total:
            allowed = f"more than {max_bad_share:.0%} " if max_bad_share else ""
            raise DataError(
                f"{self.source.name}, {first}; {unreadable} of {total} rows, {allowed}cannot be read: JSON is "
                "read as one object a line, one array of objects, or one object of such arrays"
            )
        self._hold(rows)
        self.unreadable = unreadable

    def scan(self) -> None:
        """Find columns, types and number of rows, holding one chunk in memory; raises `DataError`."""
        if self.format.outline is not None:
            names, types, rows = self.format.outline(self.source)
            self._hold(rows)
        else:
            columns: dict[Any, tuple[str, set[str]]] = {}
            for frame in self.frames(SCAN_ROWS):
                for number, name in enumerate(frame):
                    # A CSV file may name two columns alike; a JSON file's chunks may differ in theirs.
                    key = number if self.format.has_header_line else name
                    columns.setdefault(key, (str(name), set()))[1].update(map(_kind, frame.iloc[:, number]))
            names = [name for name, _ in columns.values()]
            types = [_type_of(kinds) for _, kinds in columns.values()]
        self.columns, self.types = tuple(names), tuple(types)

    def heading(self) -> Table:
        """No rows, but all columns."""
        empty = pd.DataFrame(columns=pd.Index(self.columns))
        return Table(empty, self.source.name, header_guessed=self.header_guessed)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Table]:
        """The rows in order, at most so many at once, as values of Python's own types.

        None is a null, pd.NA an entry that a JSON object lacks. Raises `DataError` when the file has
        changed meanwhile.
        """
        first = 1
        for frame in self.frames(rows):
            # Messages count rows from the chunk's own first.
            name = self.source.name if first == 1 else f"{self.source.name}, from row {first} on"
            frame = _aligned(frame, self.columns).astype(object)
            yield Table(frame, name, header_guessed=self.header_guessed)
            first += len(frame)

    def _hold(self, rows: int) -> None:
        if not rows:
            raise DataError(f"{self.source.name} holds no rows; give a file with a text in every row")
        self.rows = rows


def open_table(
    path: str | Path,
    columns: tuple[str, ...] = (),
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> RowStream:
    """Scan a file and make it ready for reading in chunks; memory holds one of them at a time.

    So a broken line is named before anybody has waited for a model. A JSON array and a packed Parquet file
    are held in memory whole.

    Args:
        columns: names for a CSV or TSV without a header line.
        delimiter: what separates the columns of a CSV or TSV, if not the suffix's comma or tab.
        encoding: of the text; found out if left out.
        sheet: of a workbook that has several.

    Raises:
        DataError: as `read_table` does, and for any JSON row that cannot be read.
    """
    formats = (TEXT,) if table_format(address_name(as_address(path)) or path) == TEXT else TABLES
    stream = RowStream(find_source(path, formats), columns, delimiter, encoding, sheet)
    stream.scan()
    return stream


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The frames of one file, or of several, one below the other; each may lack columns."""
    names = tuple(frames[0].columns)
    if any(tuple(frame.columns) != names for frame in frames):
        names = tuple(dict.fromkeys(name for frame in frames for name in frame.columns))
    return pd.concat([_aligned(frame, names) for frame in frames], ignore_index=True)


def table_of(frame: pd.DataFrame, name: str = "DataFrame") -> Table:
    """The rows of a frame that a program has in memory; its index is left out, and it is not changed.

    Missing values are what pandas takes for missing, as in a Parquet file. Raises `DataError` for a frame
    without rows or columns, and for one whose columns have several levels.
    """
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError(f"{name}: the columns have {frame.columns.nlevels} levels; flatten them to one")
    if frame.empty:
        raise DataError(f"{name} holds no rows; give a frame with a text and a label in every row")
    rows = frame.reset_index(drop=True).set_axis(list(map(str, frame.columns)), axis=1)
    return Table(rows.apply(lambda column: column.map(mended) if column.dtype == object else column), name)


def _aligned(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """A chunk with the columns of the whole file; its JSON objects may lack some."""
    missing: Any = pd.NA
    return frame if tuple(frame.columns) == names else frame.reindex(columns=list(names), fill_value=missing)


def _kind(value: Any) -> str:
    """Type of a value, as far as the type of its column goes by it."""
    if value is None or value is pd.NA:
        return ""
    if type(value) is int and not -(2**63) <= value < 2**63:
        return "large int"
    return type(value).__name__


def _type_of(kinds: set[str]) -> pa.DataType:
    """A type for all values of a column; that of a text where they have no other in common."""
    present = kinds - {""}
    if present and present <= {"int", "float"}:
        return pa.int64() if present == {"int"} else pa.float64()
    return pa.bool_() if present == {"bool"} else pa.string()
