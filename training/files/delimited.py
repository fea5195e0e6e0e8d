"""CSV and TSV: their rows in chunks, and a writer."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pandas as pd

from lorasweep.training.errors import DataError, counted, shown
from lorasweep.training.files.cells import Write, cell, open_text
from lorasweep.training.files.delimiters import described, likely_delimiter, option
from lorasweep.training.files.unpacked import Source, batches

_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read_delimited(
    source: Source, rows: int, columns: tuple[str, ...] = (), *, delimiter: str
) -> Iterator[pd.DataFrame]:
    """Frames of strings; nothing counts as missing, so the label "NA" stays itself.

    Raises `DataError` for a row that is not well formed, and for `columns` of another number than the file's.
    """
    records = _records(source, delimiter)
    first = next(records, None)
    if first is None:
        return
    header = tuple(field.strip() for field in first)
    if columns and len(columns) != len(header):
        likely = _likely(source, delimiter)
        advice = f"its lines are {described(likely)}: add {option(likely)}" if likely else "name every column"
        raise DataError(
            f"{source.name} has {counted(len(header), 'column')} (first row: {shown(header)}), --columns names "
            f"{len(columns)} ({shown(columns)}); {advice}"
        )
    if columns and columns != header:
        records = chain([first], records)
    for chunk in batches(records, rows):
        yield pd.DataFrame(chunk, columns=pd.Index(columns or header), dtype=object)


@contextmanager
def write_delimited(file: Path, names: Sequence[str], _: Sequence[Any], *, delimiter: str) -> Iterator[Write]:
    """Quotes a value that holds the separator, a quote or a line's end."""
    with open_text(file) as handle:
        writer = csv.writer(_LineFeeds(handle), delimiter=delimiter)
        writer.writerow(names)
        yield lambda columns: writer.writerows(zip(*[map(cell, values) for values in columns], strict=True))


class _LineFeeds:
    r"""Ends each row in "\n". Until Python 3.13 only a writer of "\r\n" quotes a lone carriage return."""

    def __init__(self, handle: IO[str]) -> None:
        self.handle = handle

    def write(self, row: str) -> None:
        self.handle.write(row.removesuffix("\r\n") + "\n")


def _records(source: Source, delimiter: str) -> Iterator[list[str]]:
    """The fields of each row, as many as in the first; blank lines are rows where there is one column."""
    # Python's reader, not pandas': that one joins rows in silence where a text begins with a lone quote.
    unquoted = delimiter == "\t" and _is_unquoted(source)
    quoting: Any = csv.QUOTE_NONE if unquoted else csv.QUOTE_MINIMAL
    csv.field_size_limit(2**31 - 1)
    width, line = 0, 1
    with source.text(newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            for fields in reader:
                begins, line = line, reader.line_num + 1
                if width != 1 and len(fields) < 2 and not "".join(fields).strip():
                    continue
                width = width or len(fields)
                if len(fields) > width:
                    raise _malformed(
                        source,
                        delimiter,
                        f"Expected {counted(width, 'field')} in line {begins}, saw {len(fields)}",
                    )
                if unquoted:
                    fields = [f[1:-1].replace('""', '"') if _QUOTED.fullmatch(f) else f for f in fields]
                yield fields + [""] * (width - len(fields))
        except csv.Error as error:
            reason = str(error)
            if "unexpected end" in reason:
                reason = "a quote is not closed"
            elif "expected after" in reason:
                reason = "text after a closing quote"
            raise _malformed(source, delimiter, f"{reason} in the row that begins in line {line}") from None


def _malformed(source: Source, delimiter: str, reason: str) -> DataError:
    likely = _likely(source, delimiter)
    advice = (
        f"its lines are {described(likely)}: add {option(likely)}"
        if likely
        else "put a field that holds the separator or a quote in quotes, and write each quote in it twice"
    )
    kind = described(delimiter)
    kind = f"file {kind}" if kind.startswith("separated") else f"{kind} file"
    return DataError(f"{source.name} is not a well-formed {kind} ({reason}); {advice}")


def _likely(source: Source, delimiter: str) -> str | None:
    with source.text() as lines:
        return likely_delimiter(lines, delimiter)


def _is_unquoted(source: Source) -> bool:
    """Whether a TSV file needs no parser for quotes: with as many tabs in every line, no field spans lines.

    Many are written without quoting, where a lone quote would swallow the rows that follow.
    """
    with source.text() as lines:
        return len({line.count("\t") for line in lines if line.strip()}) == 1
