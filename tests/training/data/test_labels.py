"""Labels as classes: order, numbers, and look-alikes."""

import pytest

from lorasweep.training.data.labels import (
    known_labels,
    similar_labels,
    sorted_labels,
    told_apart,
    whole_numbers,
)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([str(number) for number in range(12)], [str(number) for number in range(12)]),
        (["1", "+1", "-1", "0"], ["-1", "0", "+1", "1"]),
        (["007", "7", "10"], ["007", "7", "10"]),
        (["10", "9", "none"], ["10", "9", "none"]),
        (["10.5", "9"], ["10.5", "9"]),
        (["9" * 5000, "b"], ["9" * 5000, "b"]),
        (["²", "10", "9"], ["10", "9", "²"]),
    ],
)
def test_labels_sort_by_number_where_all_are_integers(labels: list[str], expected: list[str]) -> None:
    assert sorted_labels(reversed(labels)) == expected


def test_a_whole_number_has_one_name_where_all_labels_are_whole() -> None:
    assert whole_numbers({"5", "5.0", "-1.00", "07"}) == {"5": "5", "5.0": "5", "-1.00": "-1", "07": "07"}
    for labels in ({"1.0", "1.1"}, {"5.0", "none"}, {"1.0", "1.0.0"}):
        assert whole_numbers(labels) == {label: label for label in labels}


def test_a_classifier_knows_a_number_however_it_is_written() -> None:
    assert known_labels({"5", "6.0", "7"}, ("5.0", "6", "x")) == {"5": "5.0", "6.0": "6"}
    assert known_labels({"5", "5.0", "5.00"}, ("5", "5.0")) == {"5": "5", "5.0": "5.0"}


@pytest.mark.parametrize(
    "alike",
    [
        ["Spam", "spam"],
        ["New York", "new  york", "NewYork"],
        ["spam", "spam\u200b"],
        ["caf\u00e9", "cafe\u0301"],
        ["\u2764", "\u2764\ufe0f"],
        ["\uff21", "a"],
        ["Stra\u00dfe", "STRASSE"],
        ["1.0", "1"],
    ],
)
def test_labels_that_look_alike_are_grouped(alike: list[str]) -> None:
    assert similar_labels(["first", *alike, "last"]) == [alike]
    shown = told_apart(alike)
    assert len(set(shown)) == len(alike)
    # Where é stands in two ways, or something is invisible, it is escaped.
    assert all(text.isprintable() for text in shown)


def test_labels_that_differ_are_not() -> None:
    assert similar_labels(["a", "b", "1.1", "1.0", "a-b", "a_b", "e", "\u00e9", "C", "C++"]) == []
    assert told_apart(["caf\u00e9", "cafe\u0301"]) == [r"'caf\xe9'", r"'cafe\u0301'"]
