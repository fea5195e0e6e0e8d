"""Dates of every form that files hold, and of none."""

import pytest

from lorasweep.training.data.dates import read_dates
from lorasweep.training.errors import DataError


def read(*values: str) -> list[str]:
    return ["" if str(time) == "NaT" else str(time) for time in read_dates(values, "rows.csv, column 'date'")]


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2018-02-28", "2018-02-28 00:00:00"),
        ("2018/2/8", "2018-02-08 00:00:00"),
        ("20180228", "2018-02-28 00:00:00"),
        ("2018-02-28 00:00:00", "2018-02-28 00:00:00"),
        ("2018-02-28T10:30:00Z", "2018-02-28 10:30:00"),
        ("2018-02-28T10:30:00+02:00", "2018-02-28 08:30:00"),
        ("1519812000", "2018-02-28 10:00:00"),
        ("1519812000000", "2018-02-28 10:00:00"),
        ("1519812000000000000", "2018-02-28 10:00:00"),
        ("Feb 28, 2018", "2018-02-28 00:00:00"),
        ("28 February 2018", "2018-02-28 00:00:00"),
        ("28.02.2018 10:30", "2018-02-28 10:30:00"),
        ("02/28/2018 10:30 PM", "2018-02-28 22:30:00"),
        ("Wed, 28 Feb 2018 10:00:00 GMT", "2018-02-28 10:00:00"),
        ("Wed Feb 28 10:00:00 +0200 2018", "2018-02-28 08:00:00"),
    ],
)
def test_a_date_is_read_to_one_clock(value: str, time: str) -> None:
    assert read(value) == [time]


@pytest.mark.parametrize("value", ["", "now", "today", "soon", "2018-02-30", "12:30", "9" * 20, "1.5"])
def test_what_is_no_date_is_none(value: str) -> None:
    assert read("2018-02-28", value, "2018-03-01") == ["2018-02-28 00:00:00", "", "2018-03-01 00:00:00"]


def test_no_values_give_no_dates() -> None:
    assert read() == []
    assert read("", "") == ["", ""]


def test_one_row_tells_whether_the_day_is_in_front() -> None:
    """All rows are read by the same format: never one by the month and the next by the day."""
    assert read("02/03/2018", "13/03/2018") == ["2018-03-02 00:00:00", "2018-03-13 00:00:00"]
    assert read("02/03/2018", "03/13/2018") == ["2018-02-03 00:00:00", "2018-03-13 00:00:00"]
    # Read either way these are the same days.
    assert read("02/02/2018", "03/03/2018") == ["2018-02-02 00:00:00", "2018-03-03 00:00:00"]
    with pytest.raises(
        DataError, match=r"rows\.csv, column 'date': dates like '02/03/2018' may begin with the day"
    ):
        read("02/03/2018", "04/05/2018")
