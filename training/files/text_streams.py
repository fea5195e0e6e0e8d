"""CSV, TSV and JSON lines as streams of rows: gone through once to count and check, then read in chunks."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.packed_lines import decoded_line, open_packed, undecodable_line
from lorasweep.training.files.row_stream import RowStream, kind_of, type_of
from lorasweep.training.files.tables import unquoted_fields

SCAN_ROWS = 16_384

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def delimited_stream(file: Path, name: str, delimiter: str, given: tuple[str, ...]) -> RowStream:
    quoting: Any = csv.QUOTE_MINIMAL
    if delimiter == "\t":
        # As in lorasweep.training.files.tables: where every line has the same number of tabs, quotes need no parser.
        with open_packed(file) as lines:
            counts = {line.count(b"\t") for line in lines if line.strip()}
        quoting = csv.QUOTE_NONE if len(counts) == 1 else csv.QUOTE_MINIMAL

    def frames(rows: int) -> Iterator[pd.DataFrame]:
        """All lines, the header among them."""
        try:
            with (
                open_packed(file) as content,
                io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as text,
                pd.read_csv(
                    text,
                    sep=delimiter,
                    header=None,
                    dtype=str,
                    na_filter=False,
                    quoting=quoting,
                    chunksize=rows,
                ) as reader,
            ):
                for frame in reader:
                    yield unquoted_fields(frame) if quoting == csv.QUOTE_NONE else frame
        except UnicodeDecodeError:
            raise undecodable_line(file, name) from None
        except pd.errors.EmptyDataError:
            return
        except ValueError as error:
            reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
            kind = "tab-separated" if delimiter == "\t" else "comma-separated"
            raise DataError(
                f"{name} is not a well-formed {kind} file ({reason}); quote fields that hold the separator"
            ) from None

    first: list[str] = []
    count = 0
    for frame in frames(SCAN_ROWS):
        first = first or [str(value).strip() for value in frame.iloc[0]]
        count += len(frame)
    if given and first and len(given) != len(first):
        raise DataError(
            f"{name} has {len(first)} columns (first row: {shown(first)}), --columns names {len(given)} "
            f"({shown(given)}); name every column"
        )
    names = given or tuple(first)
    has_header = bool(first) and first == list(names)

    def read(rows: int) -> Iterator[pd.DataFrame]:
        for number, frame in enumerate(frames(rows)):
            part = frame.iloc[1:] if has_header and number == 0 else frame
            part.columns = pd.Index(names)
            if len(part):
                yield part.astype(object)

    return RowStream(name, names, count - has_header, (pa.string(),) * len(names), not given, read)


def json_lines_stream(file: Path, name: str) -> RowStream | None:
    """None where the file is one JSON array, or begins like one."""

    def objects() -> Iterator[dict[str, Any]]:
        with open_packed(file) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _json_object(decoded_line(line, name, number), f"{name}, line {number}")

    with open_packed(file) as lines:
        start = next((line for line in lines if line.strip()), b"")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return None
    kinds: dict[str, set[str]] = {}
    count = 0
    for entry in objects():
        count += 1
        for key, value in entry.items():
            kinds.setdefault(key, set()).add(kind_of(value))
    names = tuple(kinds)

    def read(rows: int) -> Iterator[pd.DataFrame]:
        chunk: list[list[Any]] = []
        for entry in objects():
            chunk.append([entry.get(key, pd.NA) for key in names])
            if len(chunk) == rows:
                yield pd.DataFrame(chunk, columns=pd.Index(names), dtype=object)
                chunk = []
        if chunk:
            yield pd.DataFrame(chunk, columns=pd.Index(names), dtype=object)

    return RowStream(name, names, count, tuple(type_of(kinds[key]) for key in names), False, read)


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    else:
        if isinstance(value, dict):
            # An escaped half of a surrogate pair is no text that UTF-8 can hold.
            return _mended(value) if "\\ud" in line.lower() else value
        reason = "not a JSON object"
    raise DataError(f"{place}: {reason}; JSON is read as one object a line or one array of objects")


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(entry) for entry in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(entry) for key, entry in value.items()}
    return value
