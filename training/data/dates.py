"""Dates as files hold them, read to one clock: ISO 8601, common written forms, seconds or more since 1970."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

import pandas as pd

from lorasweep.training.errors import DataError

DAYS = (
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m-%d-%Y",
    "%d-%m-%Y",
    "%m.%d.%Y",
    "%d.%m.%Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %b %Y",
    "%d %B %Y",
)
TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %I:%M %p")
FORMATS = (
    *(day + time for day, time in product(DAYS, TIMES)),
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
)
"""Written forms beside ISO 8601; of a column that is not ISO one of them is meant throughout."""

# Digits alone: eight are a day (20180228), four a year; more count from 1970, in a unit told by their size.
_SINCE_1970 = re.compile(r"-?\d{9,19}(\.\d+)?")
_UNITS = ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6), (float("inf"), 1e-9))


def read_dates(values: Sequence[str], where: str) -> pd.Series[pd.Timestamp]:
    """Each value as a time in UTC, without a time zone; NaT where it is empty or no date.

    A time without a zone counts as UTC. Raises `DataError`, which names the column by `where`, when dates such
    as 02/03/2018 could be read with the day or with the month in front.
    """
    codes, distinct = pd.factorize(pd.Series(values, dtype=object))
    texts = pd.Series([str(value) for value in distinct], dtype=object)
    found = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[us]")
    counted = texts.map(lambda text: _SINCE_1970.fullmatch(text) is not None).astype(bool)
    if counted.any():
        seconds = texts[counted].map(_seconds).astype(float)
        found[counted] = _read(seconds, unit="s")
    # pandas would also read words such as "now".
    written = ~counted & texts.str.contains(r"\d").astype(bool)
    if written.any():
        found[written] = _read(texts[written], format="ISO8601")
    rest = texts[written & found.isna()]
    if len(rest):
        found[rest.index] = _by_one_format(rest, where)
    return found.iloc[codes].reset_index(drop=True)


def _seconds(text: str) -> float:
    number = float(text)
    return number * next(unit for size, unit in _UNITS if abs(number) < size)


def _read(values: pd.Series, **how: str) -> pd.Series[pd.Timestamp]:
    read = pd.to_datetime(values, utc=True, errors="coerce", **how)  # type: ignore[call-overload]
    return read.dt.tz_localize(None).astype("datetime64[us]")  # type: ignore[no-any-return]


def _by_one_format(texts: pd.Series[str], where: str) -> pd.Series[pd.Timestamp]:
    """By the format that reads the most; a few may read equally many only where they mean the same days."""
    best = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[us]")
    most = 0
    doubtful = False
    for form in FORMATS:
        read = _read(texts, format=form)
        count = int(read.notna().sum())
        if count > most:
            best, most, doubtful = read, count, False
        elif count and count == most and not read.equals(best):
            doubtful = True
    if doubtful:
        example = texts[best.notna()].iloc[0]
        raise DataError(
            f"{where}: dates like {example!r} may have the day or the month in front, and no row tells which; "
            "write them as 2018-02-28"
        )
    return best
