"""JSON, an object a line or arrays of objects: its rows in chunks, and a writer of JSON lines.

An array may be the whole file, or stand in one object under `data` or the names of splits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.cells import Write, as_json, mended, open_text
from lorasweep.training.files.split_names import SPLITS, by_split, split_of
from lorasweep.training.files.unpacked import Source, batches

DATA = "data"
"""The key of the rows in an object that holds other entries, too."""


def read_json(source: Source, rows: int, _: tuple[str, ...] = ()) -> Iterator[pd.DataFrame | str]:
    """Frames of the values' own types, pd.NA where an object lacks an entry; why a row cannot be read.

    Of an object of several arrays only the `source.part` is read, if that is given. Raises `DataError` for an array
    that is not JSON.
    """
    for chunk in batches(_objects(source), rows):
        yield from (value for value in chunk if isinstance(value, str))
        yield _frame([value for value in chunk if isinstance(value, dict)])


def json_splits(source: Source) -> dict[str, str]:
    """Split → its key, where the file is one object with an array of rows for each split."""
    found = _object(source)
    arrays = _arrays(found) if found is not None else {}
    if not any(map(split_of, arrays)):
        return {}
    if others := [key for key in arrays if not split_of(key)]:
        raise DataError(
            f"{source.name} holds the arrays {shown(list(arrays))}, and {shown(others)} names no split; name them "
            f"{', '.join(SPLITS)}"
        )
    return by_split(arrays, source.name)


@contextmanager
def write_json_lines(file: Path, names: Sequence[str], _: Sequence[Any]) -> Iterator[Write]:
    """An object a line, without the entries that the row lacks."""
    with open_text(file) as handle:

        def write(columns: Sequence[Sequence[Any]]) -> None:
            for values in zip(*columns, strict=True):
                row = {n: _number(v) for n, v in zip(names, values, strict=True) if v is not pd.NA}
                handle.write(as_json(row) + "\n")

        yield write


def _frame(objects: list[dict[str, Any]]) -> pd.DataFrame:
    names = list(dict.fromkeys(key for entry in objects for key in entry))
    values = [[entry.get(name, pd.NA) for name in names] for entry in objects]
    return pd.DataFrame(values, columns=pd.Index(names, dtype=object), dtype=object)


def _objects(source: Source) -> Iterator[dict[str, Any] | str]:
    """Each row's object, or where it stands and why it is none."""
    array = _array(source)
    if array is None:
        array = _rows_of(source)
    if array is not None:
        for number, value in enumerate(array, start=1):
            yield value if isinstance(value, dict) else f"row {number}: not a JSON object"
        return
    with source.text() as lines:
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            try:
                value = _parsed(line)
                reason = "" if isinstance(value, dict) else "not a JSON object"
            except json.JSONDecodeError as error:
                reason = f"{error.msg} at character {error.pos + 1}"
            except (ValueError, RecursionError) as error:
                reason = str(error)
            yield f"line {number}: {reason}" if reason else value


def _array(source: Source) -> list[Any] | None:
    """The array that the whole file is, or None where it has to be read line by line."""
    with source.text() as lines:
        first = next((line for line in lines if not line.isspace()), "")
        if not first.lstrip().startswith("["):
            return None
        text = first + lines.read()
    try:
        values: list[Any] = _parsed(text)
        return values
    except json.JSONDecodeError as error:
        # Extra data: the first line is an array of its own, one bad line among others.
        if error.msg == "Extra data":
            return None
        raise DataError(f"{source.name}, line {error.lineno}: broken JSON array ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source.name}: broken JSON array ({error})") from None


def _rows_of(source: Source) -> list[Any] | None:
    """The rows of the one object that the whole file is, or None where it has to be read line by line."""
    if (found := _object(source)) is None:
        return None
    arrays = _arrays(found)
    if source.part:
        return arrays[source.part]
    if DATA in arrays:
        return arrays[DATA]
    return [row for rows in arrays.values() for row in rows] if any(map(split_of, arrays)) else None


def _object(source: Source) -> dict[str, Any] | None:
    """The object that the whole file is; None for several lines of objects, and for anything else."""
    with source.text() as lines:
        first = next((line for line in lines if not line.isspace()), "")
        if not first.lstrip().startswith("{"):
            return None
        with suppress(ValueError, RecursionError):
            value: dict[str, Any] = _parsed(first)
            # Lines of objects, as most files hold, are told by the second one.
            return value if all(map(str.isspace, lines)) else None
        with suppress(ValueError, RecursionError):
            whole: dict[str, Any] = _parsed(first + lines.read())
            return whole
    return None


def _arrays(found: dict[str, Any]) -> dict[str, list[Any]]:
    """The entries of an object that are arrays with objects."""
    return {
        key: rows
        for key, rows in found.items()
        if isinstance(rows, list) and any(isinstance(row, dict) for row in rows)
    }


def _parsed(text: str) -> Any:
    value = json.loads(text)
    return mended(value) if "\\ud" in text or "\\uD" in text else value


def _number(value: Any) -> Any:
    # JSON knows neither NaN nor infinity.
    return None if isinstance(value, float) and not math.isfinite(value) else value
