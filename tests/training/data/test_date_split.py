"""The newest rows as the test split."""

from __future__ import annotations

import pandas as pd
import pytest

from lorasweep.training.data.date_split import divide_by_date
from lorasweep.training.data.splits import Division
from lorasweep.training.errors import DataError

START = pd.Timestamp("2020-01-01")


def split(*rows: tuple[str, str, float]) -> Division:
    """Rows of (text, label, days since the start)."""
    frame = pd.DataFrame(
        [(text, "", label, START + pd.Timedelta(days=day)) for text, label, day in rows],
        columns=["text", "pair", "label", "date"],
    )
    return divide_by_date(frame, "column 'date'")


def daily(days: int, each: int = 1, step: float = 1.0) -> list[tuple[str, str, float]]:
    """`each` rows a time, newest first as HuffPost's file is, of two labels in turn."""
    numbers = range(days * each)
    return [(f"text {number}", "ab"[number % 2], number // each * step) for number in reversed(numbers)]


def days_of(division: Division) -> dict[str, list[int]]:
    """Split → the days of its rows."""
    days = (division.rows["date"].dt.floor("D") - START).dt.days
    return {name: days[division.rows["split"] == name].tolist() for name in ("train", "validation", "test")}


def test_the_newest_tenth_is_the_test_and_the_tenth_before_it_validation() -> None:
    found = days_of(split(*daily(200)))
    assert found == {
        "train": list(range(160)),
        "validation": list(range(160, 180)),
        "test": list(range(180, 200)),
    }


def test_whole_days_stay_together() -> None:
    """25 days of 8 rows, at different times: a tenth is 2.5 days."""
    rows = [(text, label, day + number / 1000) for number, (text, label, day) in enumerate(daily(25, 8))]
    found = days_of(split(*rows))
    kept = [set(days) for days in found.values()]
    assert not kept[0] & kept[1]
    assert not kept[1] & kept[2]
    assert {len(days) for days in (found["validation"], found["test"])} <= {16, 24}


def test_a_day_is_parted_where_days_are_too_few_but_never_a_time() -> None:
    """Three days of four times: whole days would make splits of a third."""
    found = split(*daily(12, 10, step=0.25))
    counts = found.rows["split"].value_counts()
    assert (counts["test"], counts["validation"]) == (10, 10)
    assert (found.rows.groupby("date")["split"].nunique() == 1).all()


def test_rows_of_one_time_never_straddle() -> None:
    """The newest time has a third of all rows: all of them are test, however many that is."""
    found = split(*daily(60), *[(f"late {number}", "ab"[number % 2], 60.0) for number in range(30)])
    assert set(days_of(found)["test"]) == {60}
    assert (found.rows["split"] == "test").sum() == 30
    assert (found.rows.groupby("date")["split"].nunique() == 1).all()


def test_of_equal_texts_the_oldest_stays() -> None:
    """An old text that comes again is no news: it is not tested on."""
    found = split(*daily(100), ("TEXT  3", "b", 99.0), ("text 4", "b", 99.0))
    assert found.dropped == {"same text again": 1, "same text under another label": 1}
    again = found.rows.set_index("text")["split"]
    assert again["text 3"] == again["text 4"] == "train"
    assert len(found.rows) == 100


def test_a_class_that_training_has_not_seen_is_left_out_and_counted() -> None:
    new = [(f"new {number}", "new", 90.0 + number) for number in range(4)]
    found = split(*daily(100), *new)
    assert found.left_out == {"new": 4}
    assert set(found.rows["label"]) == {"a", "b"}


def test_a_class_that_ended_stays_in_training() -> None:
    found = split(*daily(100), ("old 1", "old", 3.0))
    assert found.left_out == {}
    assert found.rows.set_index("text").loc["old 1", "split"] == "train"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [(f"text {number}", "ab"[number % 2], float(number % 2)) for number in range(40)],
            "column 'date' holds 2 different dates, and a split by date needs three",
        ),
        (
            [(f"text {number}", "a" if number < 80 else "b", float(number)) for number in range(100)],
            "the only label is 'a'",
        ),
        (
            [(f"text {n}", "c" if n >= 90 else "ab"[n % 2], float(n)) for n in range(100)],
            "no row of the test split has a label of the older, training rows",
        ),
    ],
)
def test_what_cannot_be_split(rows: list[tuple[str, str, float]], message: str) -> None:
    with pytest.raises(DataError) as refused:
        split(*rows)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
