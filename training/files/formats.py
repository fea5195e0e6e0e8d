"""The formats of data files. To add one, write its reader and add an entry to `FORMATS`: this is the only place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd
import pyarrow as pa

from lorasweep.training.files.arrow import read_arrow
from lorasweep.training.files.cells import Writer
from lorasweep.training.files.delimited import read_delimited, write_delimited
from lorasweep.training.files.excel import excel_splits, read_excel
from lorasweep.training.files.json_rows import json_splits, read_json, write_json_lines
from lorasweep.training.files.parquet import parquet_outline, read_parquet, write_parquet
from lorasweep.training.files.unpacked import Source, batches

Reader = Callable[[Source, int, tuple[str, ...]], Iterator[pd.DataFrame | str]]
"""Yields a file's rows as frames of at most so many, and for a row that cannot be read a text: where and why.

The third argument names the columns of a file without a header line.
"""


@dataclass(frozen=True)
class Format:
    """How files of one suffix are read and written; any of them may be packed (.gz, .xz, .zip).

    Attributes:
        read: the one reader, of whole files and of chunks.
        write: None where predictions cannot be written in the format.
        outline: column names, types and number of rows, for a format that states them; else they are
            found by reading the file once.
        has_header_line: the columns' names are the first line, which may be missing; they need not differ.
        is_text: it has an encoding.
        is_delimited: a character separates its columns.
        has_sheets: it may hold several tables, of which one can be named.
        splits: split → the part of the file that holds it, for a file that holds several; else empty.
        loader: the name of its reader in Hugging Face's `datasets`; empty where that has none.
    """

    read: Reader
    write: Writer | None = None
    outline: Callable[[Source], tuple[list[str], list[pa.DataType], int]] | None = None
    has_header_line: bool = False
    is_text: bool = True
    is_delimited: bool = False
    has_sheets: bool = False
    splits: Callable[[Source], dict[str, str]] | None = None
    loader: str = ""


def read_text(source: Source, rows: int, _: tuple[str, ...] = ()) -> Iterator[pd.DataFrame]:
    """The lines as a column `text`, stripped; blank lines are left out."""
    with source.text() as lines:
        for chunk in batches(filter(None, map(str.strip, lines)), rows):
            yield pd.DataFrame({"text": chunk}, dtype=object)


def delimited(delimiter: str) -> Format:
    """The format of files whose columns this character separates."""
    return Format(
        partial(read_delimited, delimiter=delimiter),
        partial(write_delimited, delimiter=delimiter),
        has_header_line=True,
        is_delimited=True,
        loader="csv",
    )


FORMATS = {
    ".csv": delimited(","),
    ".tsv": delimited("\t"),
    ".jsonl": Format(read_json, write_json_lines, splits=json_splits, loader="json"),
    ".json": Format(read_json, splits=json_splits, loader="json"),
    ".ndjson": Format(read_json, splits=json_splits, loader="json"),
    ".parquet": Format(read_parquet, write_parquet, parquet_outline, is_text=False, loader="parquet"),
    ".arrow": Format(read_arrow, is_text=False, loader="arrow"),
    ".xlsx": Format(read_excel, has_header_line=True, is_text=False, has_sheets=True, splits=excel_splits),
    ".txt": Format(read_text, loader="text"),
}

TEXT = ".txt"
"""Holds texts alone, so nothing can be learned from it."""
