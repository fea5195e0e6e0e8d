"""Excel's .xlsx: the rows of a sheet in chunks, through openpyxl (the extra `excel`)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pandas as pd

from lorasweep.training.errors import DataError, counted, first_line, missing_extra, shown
from lorasweep.training.files.split_names import by_split, split_of
from lorasweep.training.files.unpacked import Source, batches, check_unpacked_size

EXTRA = "excel"

Cells = tuple[Any, ...]


def read_excel(source: Source, rows: int, columns: tuple[str, ...] = ()) -> Iterator[pd.DataFrame]:
    """Frames of the cells' own values, None where one is empty; of a formula the value that Excel last showed.

    The first row that is not empty names the columns, unless `columns` does; empty rows, and columns without a name,
    are left out. Only the sheet `source.part` is read, if that is given; else the one that holds something, or of
    several those that are named like splits, one after the other.

    Raises:
        DataError: no .xlsx file, several sheets, none of the name, or `columns` of another number than the sheet's.
    """
    with _opened(source) as book:
        for name in [_named(source, book)] if source.part else _sheets(source, book):
            yield from _frames(source.name, book[name], rows, columns)


def excel_splits(source: Source) -> dict[str, str]:
    """Split → its sheet, where the sheets are named like splits."""
    with _opened(source) as book:
        names = _sheets(source, book)
    return by_split(names, source.name) if all(map(split_of, names)) else {}


def _frames(name: str, sheet: Any, rows: int, columns: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    records = _records(sheet)
    if (first := next(records, None)) is None:
        return
    header = tuple("" if cell is None else str(cell).strip() for cell in first)
    while header and not header[-1]:
        header = header[:-1]
    if columns and len(columns) != len(header):
        raise DataError(
            f"{name} has {counted(len(header), 'column')} (first row: {shown(header)}), --columns names "
            f"{len(columns)} ({shown(columns)}); name every column"
        )
    if columns and columns != header:
        records = chain([first], records)
    width = len(header)
    for chunk in batches(records, rows):
        cells = [row[:width] + (None,) * (width - len(row)) for row in chunk]
        yield pd.DataFrame(cells, columns=pd.Index(columns or header), dtype=object)


def _sheets(source: Source, book: Any) -> list[str]:
    """The sheet to read, or those named like splits; a sheet that holds nothing does not count."""
    filled = [sheet.title for sheet in book.worksheets if next(_records(sheet), None) is not None]
    if not filled:
        raise DataError(
            f"{source.name}: every sheet is empty ({shown(book.sheetnames)}); give one with texts"
        )
    splits = [name for name in filled if split_of(name)]
    if len(filled) > 1 and not splits:
        raise DataError(
            f"{source.name} has the sheets {shown(filled)}, and one table is wanted: name the one with the texts by "
            "--sheet, or call the sheets of splits train, validation, test"
        )
    return splits or filled


def _named(source: Source, book: Any) -> str:
    """The sheet that is asked for, found as Excel does: case does not count."""
    names: list[str] = [sheet.title for sheet in book.worksheets]
    wanted = source.part.strip().casefold()
    for name in names:
        if name == source.part or name.strip().casefold() == wanted:
            return name
    raise DataError(
        f"{source.name} has no sheet {source.part!r:.60}; its sheets are {shown(names, 12)}: name one of them "
        "by --sheet"
    )


def _records(sheet: Any) -> Iterator[Cells]:
    # Some programs write a wrong size of the sheet, which openpyxl would believe.
    sheet.reset_dimensions()
    for row in sheet.iter_rows(values_only=True):
        if any(cell is not None and cell != "" for cell in row):
            yield tuple(row)


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise DataError(
            f"{source.name}: .xlsx files need openpyxl: {missing_extra(EXTRA)}; or save the sheet as CSV"
        ) from None
    with source.unpacked() as content:
        # A zip is read from its end; what is packed has to be unpacked as a whole for that.
        file = content if isinstance(content, io.BufferedReader) else io.BytesIO(content.read())
        try:
            with zipfile.ZipFile(file) as archive:
                check_unpacked_size(source.name, archive.infolist())
            # Read only: a row at a time, not the whole book.
            book = load_workbook(file, read_only=True, data_only=True)
            try:
                yield book
            finally:
                book.close()
        except DataError:
            raise
        # openpyxl and the XML parser raise whatever they stumble over.
        except Exception as error:
            raise DataError(
                f"{source.name} is not a readable .xlsx file ({first_line(error)}); save it again, or as CSV"
            ) from None
