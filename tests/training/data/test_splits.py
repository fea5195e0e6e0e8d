import numpy as np
import pandas as pd
import pytest

from lorasweep.training.data.splits import Division, divide, stratified_part
from lorasweep.training.errors import DataError, SettingsError


def rows_of(*rows: tuple[str, ...]) -> pd.DataFrame:
    """Rows of (text, label) or (text, label, split) or (text, label, split, pair)."""
    full = [(*row, *("train", "")[len(row) - 2 :]) for row in rows]
    return pd.DataFrame(full, columns=["text", "label", "split", "pair"])


def many(sizes: dict[str, int], split: str = "train") -> list[tuple[str, ...]]:
    return [
        (f"{split} {label} {number}", label, split) for label, size in sizes.items() for number in range(size)
    ]


def split(*rows: tuple[str, ...], seed: int = 0, keep: bool = False) -> Division:
    frame = rows_of(*rows)
    return divide(frame, [name for name in ("validation", "test") if name in set(frame["split"])], seed, keep)


def table(division: Division) -> dict[str, dict[str, int]]:
    """Split → class → rows."""
    counts = division.rows.groupby(["split", "label"]).size()
    return {name: counts[name].to_dict() for name in counts.index.levels[0]}


def test_a_tenth_of_each_class_and_at_least_one_row_goes_to_each_split() -> None:
    for seed in range(5):
        counts = table(split(*many({"a": 200, "b": 33, "c": 4, "d": 3}), seed=seed))
        assert counts["test"] == counts["validation"] == {"a": 20, "b": 3, "c": 1, "d": 1}
        assert counts["train"] == {"a": 160, "b": 27, "c": 2, "d": 1}


def test_the_seed_decides_and_the_order_stays() -> None:
    rows = many({"a": 50, "b": 50})
    one, same, other = (split(*rows, seed=seed).rows for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert one["split"].tolist() != other["split"].tolist()
    assert one["text"].tolist() == [row[0] for row in rows]


def test_equal_texts_are_kept_once() -> None:
    division = split(
        *many({"a": 5, "b": 5}),
        ("Some  news", "a"),
        ("SOME\u2003news ", "a"),
        ("some news", "b"),
        ("some news", "a", "train", "with a description"),
        ("straße", "a"),
        ("STRASSE", "a"),
    )
    assert division.dropped == {"same text again": 2, "same text under another label": 1}
    assert division.rows["text"].tolist()[10:] == ["Some  news", "some news", "straße"]


def test_a_pair_is_not_mistaken_for_another_cut_of_the_same_words() -> None:
    assert (
        split(*many({"a": 5, "b": 5}), ("x", "a", "train", "y z"), ("x y", "a", "train", "z")).dropped == {}
    )


def test_classes_of_fewer_than_three_rows_are_left_out_and_named() -> None:
    division = split(*many({"a": 10, "b": 3, "c": 2, "d": 1}), ("train c 0", "c"))
    assert division.left_out == {"c": 2, "d": 1}
    assert set(division.rows["label"]) == {"a", "b"}


def test_small_classes_that_are_kept_stand_in_training() -> None:
    counts = table(split(*many({"a": 10, "b": 3, "c": 2, "d": 1}), keep=True))
    assert counts["train"] == {"a": 8, "b": 1, "c": 2, "d": 1}
    assert counts["test"] == counts["validation"] == {"a": 1, "b": 1}
    with pytest.raises(DataError, match="no class has the 3 training rows"):
        split(*many({"a": 2, "b": 2}), keep=True)


def test_a_given_test_split_stays_and_validation_is_carved() -> None:
    test = [*many({"a": 2, "b": 2}, "test"), ("test a 0", "a", "test")]
    division = split(*many({"a": 40, "b": 20}), *test, ("TEST a 1", "a"), ("test b 1", "a"))
    assert division.dropped == {"text also in the test split": 2}
    assert table(division) == {
        "train": {"a": 36, "b": 18},
        "validation": {"a": 4, "b": 2},
        "test": {"a": 3, "b": 2},
    }


def test_a_given_validation_split_stays_and_a_test_split_is_carved() -> None:
    validation = many({"a": 2, "b": 2}, "validation")
    division = split(*many({"a": 40, "b": 20}), *validation, ("validation a 0", "a"))
    assert division.dropped == {"text also in the validation split": 1}
    assert table(division)["validation"] == {"a": 2, "b": 2}
    assert table(division)["test"] == {"a": 4, "b": 2}


def test_no_text_stands_in_two_given_splits() -> None:
    division = split(
        *many({"a": 5, "b": 5}),
        *many({"a": 2, "b": 2}, "validation"),
        *many({"a": 2, "b": 2}, "test"),
        ("both", "a", "validation"),
        ("both", "a", "test"),
        ("both", "a"),
        ("validation b 0", "b"),
        ("train a 0", "b"),
    )
    assert division.dropped == {
        "text also in the test split": 2,
        "text also in the validation split": 1,
        "same text under another label": 1,
    }
    assert division.rows["text"].is_unique
    assert division.rows["split"].value_counts().to_dict() == {"train": 10, "validation": 4, "test": 5}


def test_a_label_that_training_does_not_know_is_an_error() -> None:
    with pytest.raises(
        DataError, match=r"the test split holds the label 'new' that no usable training row has"
    ):
        split(*many({"a": 5, "b": 5}), *many({"a": 1, "b": 1, "new": 1}, "test"), keep=True)


def test_a_label_that_a_given_split_lacks_is_an_error_unless_its_class_is_small() -> None:
    train, test = many({"a": 5, "b": 5, "c": 3, "d": 2}), many({"a": 1, "b": 1}, "test")
    with pytest.raises(
        DataError, match=r"the test split has no row with the label 'c' of .* --keep-small-classes"
    ):
        split(*train, *test)
    division = split(*[row for row in train if row[1] != "c"], *test)
    assert division.left_out == {"d": 2}
    assert table(split(*train, *test, keep=True))["train"] == {"a": 4, "b": 4, "c": 2, "d": 1}


def test_a_class_with_too_few_training_rows_to_carve_from_is_small() -> None:
    rows = [*many({"a": 5, "b": 5, "c": 1}), *many({"a": 1, "b": 1, "c": 4}, "test")]
    division = split(*rows)
    assert division.left_out == {"c": 5}
    assert "c" not in table(division)["test"]
    kept = table(split(*rows, keep=True))
    assert (kept["train"]["c"], kept["test"]["c"], "c" in kept["validation"]) == (1, 4, False)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (many({"only": 9}), "the only label is 'only'; a classifier needs"),
        (many({"a": 9, "b": 2}), r"the only label is 'a' once classes too small .* \('b'\)"),
        (many({"a": 2, "b": 2}), "no label remains once classes"),
        (many({"a": 9, "b": 9}, "test"), "the train split has no usable rows"),
        ([*many({"a": 9, "b": 9}, "test"), ("test a 0", "a")], "the train split has no usable rows"),
    ],
)
def test_nothing_to_learn_from(rows: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(*rows)


def test_a_given_split_without_usable_rows_is_an_error_and_not_carved() -> None:
    with pytest.raises(DataError, match="the validation split has no usable rows"):
        divide(rows_of(*many({"a": 9, "b": 9})), ["validation"], 0, False)


def test_a_stratified_part_has_its_size_and_every_class() -> None:
    labels = pd.Series(["a"] * 700 + ["b"] * 290 + ["c"] * 9 + ["d"])
    for size in (4, 5, 17, 100, 999):
        part = labels[stratified_part(labels, size, 0, "--max-train-rows")]
        assert len(part) == size
        assert set(part) == {"a", "b", "c", "d"}
    counts = labels[stratified_part(labels, 100, 0, "--max-train-rows")].value_counts()
    assert counts.to_dict() == {"a": 68, "b": 29, "c": 2, "d": 1}
    assert stratified_part(labels, 2000, 0, "--max-train-rows").all()
    assert (stratified_part(labels, 100, 0, "") != stratified_part(labels, 100, 1, "")).any()
    assert np.array_equal(stratified_part(labels, 100, 0, ""), stratified_part(labels, 100, 0, ""))


def test_a_part_smaller_than_the_classes_is_refused() -> None:
    with pytest.raises(
        SettingsError, match="--max-train-rows 1 is less than one row for each of the 2 classes"
    ):
        stratified_part(pd.Series(["a", "a", "b"]), 1, 0, "--max-train-rows")
