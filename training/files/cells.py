"""Values of any type as text: the fields of a CSV file, and what JSON has no type for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import date, time
from pathlib import Path
from typing import IO, Any

import pandas as pd

Write = Callable[[Sequence[Sequence[Any]]], None]
"""Appends rows to a file, given as the values of each column."""

Writer = Callable[[Path, Sequence[str], Sequence[Any]], AbstractContextManager[Write]]
"""Opens a file for rows with columns of these names and Arrow types, and closes it."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def open_text(file: Path) -> IO[str]:
    """A new file in UTF-8; half a surrogate pair, which UTF-8 cannot hold, is written as "?"."""
    return file.open("w", encoding="utf-8", errors="replace", newline="")


def cell(value: Any) -> str:
    """A value as a field; "" where it is missing."""
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return as_json(value) if isinstance(value, list | dict) else str(_plain(value))


def as_json(value: Any) -> str:
    """A value as one line of JSON; what JSON has no type for is text."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def mended(value: Any) -> Any:
    """A value of JSON in which each half of a surrogate pair, which UTF-8 cannot hold, is U+FFFD."""
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [mended(entry) for entry in value]
    if isinstance(value, dict):
        return {mended(key): mended(entry) for key, entry in value.items()}
    return value


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value.isoformat() if isinstance(value, date | time) else str(value)
