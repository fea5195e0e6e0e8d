"""Any table that a user may bring, as a pandas frame: JSON, CSV, TSV or Parquet, plain or packed.

The format is told by the file's suffix and never guessed from its content, except that a JSON file may hold
an object a line or one array of objects. Whatever is wrong with a file ends in a `DataError` of one line.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.unpacked import decoded, unpacked

JSON = (".json", ".jsonl", ".ndjson")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
FORMATS = (*JSON, *DELIMITERS, ".parquet")

MAX_BAD_SHARE = 0.05
"""Share of a JSON file's rows that may be unreadable before the file itself is refused."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """A file's rows, and what a message about them needs."""

    frame: pd.DataFrame
    name: str
    """The path as given; for a zip followed by the table's name in it."""
    unparsable: int = 0
    """JSON rows that were skipped because they do not parse or are not objects."""
    header_guessed: bool = False
    """The column names are the first line of a CSV or TSV, which may have been a row."""


def read_table(
    path: str | Path, columns: tuple[str, ...] = (), max_bad_share: float = MAX_BAD_SHARE
) -> Table:
    """Reads a whole file.

    `columns` names the columns of a CSV or TSV that has no header line. JSON values keep their Python type,
    CSV and TSV values are strings and nothing in them counts as missing, so the label "NA" stays itself.

    Raises `DataError` for a path that is no readable file, an unknown suffix, a file that is empty or not
    what its suffix says, text that is not UTF-8, a zip without exactly one table, `columns` that do not fit,
    and JSON of which more than `max_bad_share` does not parse.
    """
    name, suffix, content = unpacked(str(path), FORMATS)
    if columns and suffix not in DELIMITERS:
        raise DataError(
            f"{name}: --columns is for CSV and TSV without a header line; this file names its own columns"
        )
    unparsable = 0
    if suffix == ".parquet":
        frame = _parquet(content, name)
    elif suffix in DELIMITERS:
        frame = _delimited(decoded(content, name), name, DELIMITERS[suffix], columns)
    else:
        frame, unparsable = _json(decoded(content, name), name, max_bad_share)
    if frame.empty:
        raise DataError(f"{name} holds no rows; give a file with a text and a label in every row")
    return Table(frame, name, unparsable, header_guessed=suffix in DELIMITERS and not columns)


def table_of(frame: pd.DataFrame, name: str = "DataFrame") -> Table:
    """The rows of a frame that a program has in memory; its index is left out, and it is not changed.

    Missing values are what pandas takes for missing, as in a Parquet file. Raises `DataError` for a frame
    without rows or columns, and for one whose columns have several levels.
    """
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError(f"{name}: the columns have {frame.columns.nlevels} levels; flatten them to one")
    if frame.empty:
        raise DataError(f"{name} holds no rows; give a frame with a text and a label in every row")
    return Table(
        frame.reset_index(drop=True).set_axis([str(column) for column in frame.columns], axis=1), name
    )


def read_lines(path: str | Path) -> list[str]:
    """The lines of a plain (or .gz, .xz) text file, blank ones left out; raises `DataError`."""
    name, _, content = unpacked(str(path), (".txt",))
    lines = [line.strip() for line in decoded(content, name).split("\n")]
    return [line for line in lines if line]


def _parquet(content: bytes, name: str) -> pd.DataFrame:
    try:
        # Nullable types: an integer label column with gaps must not become 3.0.
        frame = pd.read_parquet(io.BytesIO(content), engine="pyarrow", dtype_backend="numpy_nullable")
    except (ValueError, OSError, TypeError, KeyError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(
            f"{name} is not a readable Parquet file ({reason}); write or download it again"
        ) from None
    return frame if frame.index.names == [None] else frame.reset_index()


def _delimited(text: str, name: str, delimiter: str, columns: tuple[str, ...]) -> pd.DataFrame:
    # Many TSV files are written without quoting, where a lone quote would swallow the following rows. Where
    # every line has the same number of tabs no quoted field spans lines, so quotes need no parser.
    unquoted = delimiter == "\t" and len({line.count("\t") for line in text.split("\n") if line.strip()}) == 1
    try:
        # Without a header in pandas' sense: it would take a row's surplus fields for an index in silence.
        frame = pd.read_csv(
            io.StringIO(text),
            sep=delimiter,
            header=None,
            dtype=str,
            na_filter=False,
            quoting=csv.QUOTE_NONE if unquoted else csv.QUOTE_MINIMAL,
        )
    except ValueError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        kind = "tab-separated" if delimiter == "\t" else "comma-separated"
        raise DataError(
            f"{name} is not a well-formed {kind} file ({reason}); quote fields that hold the separator"
        ) from None
    if unquoted:
        frame = unquoted_fields(frame)
    first = [str(value).strip() for value in frame.iloc[0]]
    if not columns:
        frame.columns = pd.Index(first)
        return frame.iloc[1:].reset_index(drop=True)
    if len(columns) != len(first):
        raise DataError(
            f"{name} has {len(first)} columns (first row: {shown(first)}), --columns names {len(columns)} "
            f"({shown(columns)}); name every column"
        )
    frame.columns = pd.Index(columns)
    return frame.iloc[1:].reset_index(drop=True) if first == list(columns) else frame


def unquoted_fields(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of texts whose fields lose the quotes around them, in place; for files read without quoting."""
    for column in frame:
        quoted = frame[column].str.fullmatch(r'"(?:[^"]|"")*"')
        frame[column] = frame[column].where(~quoted, frame[column].str[1:-1].str.replace('""', '"'))
    return frame


def _json(text: str, name: str, max_bad_share: float) -> tuple[pd.DataFrame, int]:
    values = _json_array(text, name)
    unit = "line" if values is None else "row"
    rows: list[dict[str, Any]] = []
    bad, first_bad = 0, ""
    for number, value in enumerate(_json_lines(text) if values is None else values, start=1):
        if isinstance(value, dict):
            rows.append(value)
        elif value is not _BLANK:
            bad += 1
            reason = value if isinstance(value, _Unreadable) else "not a JSON object"
            first_bad = first_bad or f"{unit} {number}: {reason}"
    total = len(rows) + bad
    if bad > max_bad_share * total:
        allowed = f"more than {max_bad_share:.0%} " if max_bad_share else ""
        raise DataError(
            f"{name}, {first_bad}; {bad} of {total} rows, {allowed}cannot be read: JSON is read "
            "as one object a line or one array of objects"
        )
    escapes = "\\ud" in text or "\\uD" in text
    return _without_lone_surrogates(rows) if escapes else pd.DataFrame(rows, dtype=object), bad


class _Unreadable(str):
    """Why a line is not JSON."""


_BLANK = _Unreadable("blank")


def _json_array(text: str, name: str) -> list[Any] | None:
    """The array that the whole text is, or None where it has to be read line by line."""
    if not text[:1000].lstrip().startswith("["):
        return None
    try:
        values: list[Any] = json.loads(text)
        return values
    except json.JSONDecodeError as error:
        # Extra data: the first line is an array of its own, one bad line among others.
        if error.msg == "Extra data":
            return None
        raise DataError(f"{name}, line {error.lineno}: broken JSON array ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: broken JSON array ({error})") from None


def _json_lines(text: str) -> Iterator[object]:
    """What each line holds: a parsed value, `_BLANK` or another `_Unreadable`."""
    # Not splitlines(): it would also split at U+2028 and its like, which stand unescaped in JSON strings.
    for line in text.split("\n"):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            blank = not line or line.isspace()
            yield _BLANK if blank else _Unreadable(f"{error.msg} at character {error.pos + 1}")
        except (ValueError, RecursionError) as error:
            yield _Unreadable(str(error))


def _without_lone_surrogates(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A frame in which an escaped half of a surrogate pair, which UTF-8 cannot hold, is U+FFFD."""
    try:
        frame = pd.DataFrame(rows, dtype=object)
        for column in frame:
            "".join([value for value in frame[column] if isinstance(value, str)]).encode()
        return frame
    except UnicodeEncodeError:

        def mended(value: Any) -> Any:
            return _LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value

        return pd.DataFrame([{mended(k): mended(v) for k, v in row.items()} for row in rows], dtype=object)
