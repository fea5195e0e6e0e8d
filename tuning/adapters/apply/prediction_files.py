"""Files of predictions: CSV, TSV, JSON lines or Parquet, written a chunk at a time and whole or not at all."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from typing import IO, Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lorasweep.training.errors import DataError, ExportError, SettingsError, shown
from lorasweep.training.files.row_stream import RowStream

OUTPUTS = (".csv", ".tsv", ".jsonl", ".parquet")


class Writer(Protocol):
    """Takes the chunks of a file in order."""

    def write(self, frame: pd.DataFrame, added: Sequence[Sequence[Any]]) -> None:
        """Write rows: the input's columns, then those added, each with a value a row."""

    def close(self) -> None:
        """Write what is left and close the file."""


def check_output(out: Path) -> None:
    """Refuse a place that cannot be written to, before any work is done.

    Raises:
        SettingsError: a suffix that is none of `OUTPUTS`.
        ExportError: something is there already.
    """
    if out.suffix.lower() not in OUTPUTS:
        raise SettingsError(
            f"--out {out}: the format is told by the suffix, and {out.suffix or 'none'!r} is not one of "
            f"{', '.join(OUTPUTS)}; choose another name"
        )
    if os.path.lexists(out):
        raise ExportError(f"--out {out}: exists already; remove it or choose another name")


def open_writer(
    file: Path, suffix: str, stream: RowStream, added: Sequence[tuple[str, pa.DataType]]
) -> Writer:
    """A writer for rows of `stream` with further columns.

    Args:
        suffix: one of `OUTPUTS`.
        added: name and type of each further column.

    Raises:
        DataError: two columns of one name, for JSON lines and Parquet.
    """
    names = [*stream.columns, *(name for name, _ in added)]
    if suffix in (".jsonl", ".parquet") and len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{stream.name} has two columns {shown(twice)}; write a .csv, or rename one of them")
    if suffix == ".parquet":
        return _Parquet(file, names, [*stream.types, *(kind for _, kind in added)])
    if suffix == ".jsonl":
        return _JsonLines(file, names)
    return _Delimited(file, names, "\t" if suffix == ".tsv" else ",")


class _Delimited:
    """Quotes where a value holds the separator, a quote or a line's end; Python's own writer in 3.11 leaves a
    lone carriage return bare, and a reader then takes it for a line's end."""

    def __init__(self, file: Path, names: list[str], separator: str) -> None:
        self.handle = _text(file)
        self.separator = separator
        self.special = re.compile(f'[{separator}"\r\n]')
        self.handle.write(self._line(names))

    def write(self, frame: pd.DataFrame, added: Sequence[Sequence[Any]]) -> None:
        columns = [[_cell(value) for value in values] for values in (*_columns(frame), *added)]
        self.handle.writelines(map(self._line, zip(*columns, strict=True)))

    def close(self) -> None:
        self.handle.close()

    def _line(self, cells: Sequence[str]) -> str:
        quoted = ['"' + c.replace('"', '""') + '"' if self.special.search(c) else c for c in cells]
        return self.separator.join(quoted) + "\n"


class _JsonLines:
    def __init__(self, file: Path, names: list[str]) -> None:
        self.handle = _text(file)
        self.names = names

    def write(self, frame: pd.DataFrame, added: Sequence[Sequence[Any]]) -> None:
        for values in zip(*_columns(frame), *added, strict=True):
            # An entry that the input's row lacks is lacking here too.
            row = {name: value for name, value in zip(self.names, values, strict=True) if value is not pd.NA}
            self.handle.write(_json({name: _number(value) for name, value in row.items()}) + "\n")

    def close(self) -> None:
        self.handle.close()


class _Parquet:
    def __init__(self, file: Path, names: list[str], types: Sequence[pa.DataType]) -> None:
        self.schema = pa.schema(list(zip(names, types, strict=True)))
        self.writer = pq.ParquetWriter(file, self.schema, compression="zstd")

    def write(self, frame: pd.DataFrame, added: Sequence[Sequence[Any]]) -> None:
        arrays = [
            pa.array([_fitting(value, kind) for value in values], type=kind)
            for values, kind in zip((*_columns(frame), *added), self.schema.types, strict=True)
        ]
        self.writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))

    def close(self) -> None:
        self.writer.close()


def _text(file: Path) -> IO[str]:
    # No value that has come this far may stop the writing: a stray half of a surrogate pair becomes "?".
    return file.open("w", encoding="utf-8", errors="replace", newline="")


def _columns(frame: pd.DataFrame) -> list[list[Any]]:
    return [frame.iloc[:, number].tolist() for number in range(frame.shape[1])]


def _cell(value: Any) -> str:
    """A value as a field of text; a probability has six digits."""
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return _json(value) if isinstance(value, list | dict) else str(_plain(value))


def _number(value: Any) -> Any:
    # JSON knows neither NaN nor infinity.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fitting(value: Any, kind: pa.DataType) -> Any:
    if value is None or value is pd.NA:
        return None
    # A column of many types is one of texts.
    return _cell(value) if pa.types.is_string(kind) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON has no type for, as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value.isoformat() if isinstance(value, date | time) else str(value)
