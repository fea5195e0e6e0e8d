"""Whole tables, and the splits that a file, a folder or a data set of the hub may bring."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.content import ARROW, PARQUET
from lorasweep.training.files.download import as_address
from lorasweep.training.files.folders import folder_files
from lorasweep.training.files.hub_data import is_hub_id, read_hub
from lorasweep.training.files.split_names import SPLITS
from lorasweep.training.files.tables import (
    MAX_BAD_SHARE,
    SCAN_ROWS,
    TABLES,
    RowStream,
    Table,
    joined,
    table_of,
)
from lorasweep.training.files.unpacked import PACKED, Source, find_source, table_format

WHOLE = ""
"""In place of a split's name: the table of a file without splits."""


def kind_of(path: str | Path) -> Literal["file", "folder", "hub"]:
    """What `path` names: a folder or a hub's data set if there is one or it looks like one, else a file.

    An address of the web is a file.
    """
    # os.path raises nothing for a name that no path can have.
    local = os.path.expanduser(path)  # noqa: PTH111
    if as_address(path):
        return "file"
    if os.path.isdir(local):  # noqa: PTH112
        return "folder"
    named = table_format(path) in (*TABLES, *PACKED)
    return "hub" if is_hub_id(path) and not named and not os.path.exists(local) else "file"  # noqa: PTH110


def read_table(
    path: str | Path,
    columns: tuple[str, ...] = (),
    max_bad_share: float = MAX_BAD_SHARE,
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Table:
    """Read a whole file, which holds one table.

    `columns` names the columns of a CSV or TSV that has no header line, `delimiter` is what separates them where
    that is not the suffix's comma or tab, `encoding` that of the text, which is found out if left out, `sheet` the one
    to read of a workbook that has several. JSON values keep their Python type, CSV and TSV values are strings and
    nothing in them counts as missing, so the label "NA" stays itself.

    Raises `DataError` for a path that is no readable file, an unknown suffix, a file that is empty or not
    what its suffix says, text that is not of its encoding, a zip without exactly one table, `columns` that do not
    fit, and JSON of which more than `max_bad_share` cannot be read.
    """
    tables = read_tables(path, columns, max_bad_share, delimiter, encoding, sheet)
    if WHOLE not in tables:
        raise DataError(
            f"{path} holds the splits {', '.join(tables)} where one table is wanted; write its rows to a file"
        )
    return tables[WHOLE]


def read_tables(
    path: str | Path,
    columns: tuple[str, ...] = (),
    max_bad_share: float = MAX_BAD_SHARE,
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> dict[str, Table]:
    """Read all of a file that may hold splits: each split's table by its name, else the one table as `WHOLE`.

    Arguments and errors are those of `read_table`. The path may also be a folder of Parquet or Arrow files, or a data
    set's name on the Hugging Face hub.
    """
    kind = kind_of(path)
    if kind == "folder":
        opened = partial(RowStream, given=columns, delimiter=delimiter, encoding=encoding, sheet=sheet)
        return _read_folder(Path(path).expanduser(), opened)
    if kind == "hub":
        if columns or delimiter is not None or encoding is not None or sheet is not None:
            raise DataError(
                f"{path}: --columns, --delimiter, --encoding and --sheet are for files; leave them out"
            )
        frames, left_out = read_hub(path)
        notes = _left_out(path, left_out)
        return {
            split: replace(table_of(rows, f"{path}, {split}"), notes=notes) for split, rows in frames.items()
        }
    stream = RowStream(find_source(path, TABLES), columns, delimiter, encoding, sheet)
    # A sheet that is named is one table, whatever its name.
    splits = stream.format.splits(stream.source) if stream.format.splits is not None and not sheet else {}
    if not splits:
        return {WHOLE: _read(stream, max_bad_share)}
    tables = {}
    for split, part in splits.items():
        source = replace(stream.source, part=part, name=f"{stream.source.name}, {part}")
        table = _read(RowStream(source, columns, delimiter, encoding), max_bad_share)
        tables[split] = replace(table, notes=stream.notes)
    return tables


def _read_folder(folder: Path, opened: Callable[[Source], RowStream]) -> dict[str, Table]:
    found = folder_files(folder)
    tables = {}
    for split, files in found.files.items():
        frames = [
            frame for file in files for frame in opened(find_source(file, (PARQUET, ARROW))).frames(SCAN_ROWS)
        ]
        name = f"{folder}, {split}" if split else str(folder)
        tables[split or WHOLE] = Table(joined(frames), name, notes=_left_out(folder, found.left_out))
    return tables


def _left_out(path: str | Path, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"{path}: {shown(names, 4)} is left out: not called {', '.join(SPLITS)}",)


def _read(stream: RowStream, max_bad_share: float) -> Table:
    frame = joined(list(stream.frames(SCAN_ROWS, max_bad_share)))
    return Table(frame, stream.source.name, stream.unreadable, stream.header_guessed, stream.notes)
