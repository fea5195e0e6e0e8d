from typing import Any

import numpy as np
import pandas as pd
import pytest

from lorasweep.training.data.columns import find_label, find_text, strings
from lorasweep.training.errors import DataError, SettingsError
from lorasweep.training.files.tables import Table


def table(*names: str, header_guessed: bool = False) -> Table:
    return Table(pd.DataFrame([["x"] * len(names)], columns=list(names)), "a.csv", 0, header_guessed)


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        (
            ("link", "headline", "category", "short_description"),
            ("headline", "short_description"),
            "category",
        ),
        (("headline", "category"), ("headline",), "category"),
        (("label", "text"), ("text",), "label"),
        (("Class", "Title", "Description"), ("Title", "Description"), "Class"),
        (("sentence", "label", "idx"), ("sentence",), "label"),
        (("review", "sentiment"), ("review",), "sentiment"),
        (("id", "Text", "Labels"), ("Text",), "Labels"),
        (("text", "target", "review"), ("text",), "target"),
        # Names that are as often something else give way.
        (("text", "target", "label"), ("text",), "label"),
        (("text", "sentiment", "category"), ("text",), "category"),
    ],
)
def test_usual_columns_are_recognised(names: tuple[str, ...], text: tuple[str, ...], label: str) -> None:
    assert find_text(table(*names), ()) == text
    assert find_label(table(*names), None) == label


def test_a_column_that_is_taken_is_not_recognised_again() -> None:
    assert find_text(table("title", "text"), (), taken=["title"]) == ("text",)
    assert find_label(table("category", "label"), None, taken=["category"]) == "label"


def test_columns_that_are_missing_list_those_present() -> None:
    with pytest.raises(DataError, match=r"^a\.csv: no column 'b' \(--text\); columns present: 'a', 'c'$"):
        find_text(table("a", "c"), ("a", "b"))
    with pytest.raises(DataError, match=r"name it with --label; columns present: 'a', 'c'$"):
        find_label(table("a", "c"), None)
    with pytest.raises(DataError, match=r"name it with --text; columns present: 'a', 'c'; .* --columns$"):
        find_text(table("a", "c", header_guessed=True), ())


def test_columns_that_are_not_clear_are_not_guessed() -> None:
    with pytest.raises(
        DataError, match="'category', 'label' could each be the label; choose one with --label"
    ):
        find_label(table("text", "category", "label"), None)
    with pytest.raises(DataError, match="'target', 'sentiment' could each be the label"):
        find_label(table("text", "target", "sentiment"), None)
    with pytest.raises(DataError, match="2 columns 'text'"):
        find_text(table("text", "text"), ())


@pytest.mark.parametrize("text", [("a", "a"), ("a", "b", "c")])
def test_text_is_one_column_or_two(text: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="one column, or two"):
        find_text(table("a", "b", "c"), text)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Series([" a ", "b\0c", None]), ["a", "bc", ""]),
        (pd.Series([1, None, 3]), ["1", "", "3"]),
        (pd.Series([1.5, 2.0, np.nan]), ["1.5", "2", ""]),
        (pd.Series([1, None], dtype="Int64"), ["1", ""]),
        (pd.Series([2.0, None], dtype="Float64"), ["2", ""]),
        (pd.Series([True, False]), ["True", "False"]),
        (pd.Series([True, None], dtype="boolean"), ["True", ""]),
        (pd.Series(["u", None, "v"], dtype="category"), ["u", "", "v"]),
        (
            pd.Series(["NA", "3", 3, 3.0, True, None, float("nan")], dtype=object),
            ["NA", "3", "3", "3", "True", "", ""],
        ),
        (pd.Series([b"caf\xc3\xa9"], dtype=object), ["café"]),
        (pd.Series([pd.NaT, pd.Timestamp("2020-01-02")]), ["", "2020-01-02 00:00:00"]),
    ],
)
def test_values_become_clean_strings(values: pd.Series, expected: list[str]) -> None:
    assert strings(Table(values.to_frame("c"), "a"), "c") == expected


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, np.array([1, 2])])
def test_lists_and_objects_are_no_text(value: Any) -> None:
    frame = pd.DataFrame({"c": pd.Series(["x", value], dtype=object)})
    with pytest.raises(DataError, match=r"^a, row 2: column 'c' holds .*, not one text or label"):
        strings(Table(frame, "a"), "c")


def test_a_name_that_was_cut_at_its_comma_says_how_to_quote_it() -> None:
    quoted = r"""; for the column 'title, in short' quote the name twice: --text '"title, in short"'$"""
    with pytest.raises(DataError, match=quoted):
        find_text(table("title, in short", "label"), ("title", "in short"))
    assert find_text(table("title, in short", "label"), ("title, in short",)) == ("title, in short",)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("text;label",), "if ';' separates the columns, add --delimiter ';'"),
        (("a text\tlabel, or none", "b"), "if '\\t' separates the columns, add --delimiter tab"),
        (("text,label",), "if ',' separates the columns, add --delimiter ','"),
        (("title, in short", "b"), "name its columns with --columns"),
    ],
)
def test_a_header_in_one_piece_hints_at_the_delimiter(names: tuple[str, ...], hint: str) -> None:
    with pytest.raises(DataError) as error:
        find_text(table(*names, header_guessed=True), ())
    assert str(error.value).endswith(hint)
