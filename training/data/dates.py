"""Dates in the forms that files hold, read as UTC: ISO 8601, common written forms, numbers since 1970."""

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
"""Written forms beside ISO 8601; a column that is not ISO uses one of them throughout."""

# Digits alone: eight are a day (20180228), four a year; more count from 1970, and their size tells the unit.
_SINCE_1970 = re.compile(r"-?\d{9,19}(\.\d+)?")
_UNITS = ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6), (float("inf"), 1e-9))


def read_dates(values: Sequence[str], where: str) -> pd.Series[pd.Timestamp]:
    """Each value as a time in UTC, stored without a zone; NaT where it is empty or no date.

    A time without a zone counts as UTC. Raises `DataError`, naming the column by `where`, if dates such as
    02/03/2018 could begin with the day or with the month.
    """
    codes, distinct = pd.factorize(pd.Series(values, dtype=object))
    texts = pd.Series([str(value) for value in distinct], dtype=object)
    times = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[us]")
    counted = texts.map(lambda text: _SINCE_1970.fullmatch(text) is not None).astype(bool)
    if counted.any():
        seconds = texts[counted].map(_seconds).astype(float)
        times[counted] = _read(seconds, unit="s")
    # pandas would also read words such as "now".
    written = ~counted & texts.str.contains(r"\d").astype(bool)
    if written.any():
        times[written] = _read(texts[written], format="ISO8601")
    rest = texts[written & times.isna()]
    if len(rest):
        times[rest.index] = _by_one_format(rest, where)
    return times.iloc[codes].reset_index(drop=True)


def _seconds(text: str) -> float:
    number = float(text)
    return number * next(unit for size, unit in _UNITS if abs(number) < size)


def _read(values: pd.Series, **how: str) -> pd.Series[pd.Timestamp]:
    read = pd.to_datetime(values, utc=True, errors="coerce", **how)  # type: ignore[call-overload]
    return read.dt.tz_localize(None).astype("datetime64[us]")  # type: ignore[no-any-return]


def _by_one_format(texts: pd.Series[str], where: str) -> pd.Series[pd.Timestamp]:
    """Read by the format that fits the most texts; several that fit equally many must agree on the days."""
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
            f"{where}: dates like {example!r} may begin with the day or the month, and no row tells which; "
            "write them as 2018-02-28"
        )
    return best
