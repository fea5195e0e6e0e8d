import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lorasweep.training.data.dataset import Dataset, Texts, fingerprint
from lorasweep.training.data.sources import SAMPLE_SOURCE
from lorasweep.training.data.summary import data_notes, describe, summary_lines, token_line, token_notes
from lorasweep.training.errors import DataError


def dataset(pair: bool = True) -> Dataset:
    def texts(name: str, labels: list[int]) -> Texts:
        words = [f"{name} {number} é😀\n\"'\t" for number in range(len(labels))]
        pairs = [*words[1:], ""] if pair else None
        return Texts(words, pairs, np.array(labels, dtype=np.int64))

    splits = {"train": texts("a", [0, 1, 1, 2]), "validation": texts("b", [1]), "test": texts("c", [1, 0, 0])}
    names = ("1", "NA", "ü")
    return Dataset(
        **splits,
        label_names=names,
        text_columns=("headline", "about")[: 1 + pair],
        label_column="category",
        source="news.json",
        fingerprint=fingerprint(splits, names),
        rows_read=1300,
        dropped={"no text": 2, "a same text": 1},
        left_out_classes={"tiny": 2},
    )


@pytest.mark.parametrize("pair", [True, False])
def test_a_saved_data_set_loads_equal(tmp_path: Path, pair: bool) -> None:
    saved = dataset(pair)
    saved.save(tmp_path / "new" / "folder")
    loaded = Dataset.load(tmp_path / "new" / "folder")
    for name, texts in saved.splits().items():
        again = loaded.splits()[name]
        assert (again.text, again.pair) == (texts.text, texts.pair)
        assert again.labels.dtype == np.int64
        np.testing.assert_array_equal(again.labels, texts.labels)
    for fact in ("label_names", "text_columns", "label_column", "source", "fingerprint", "rows_read"):
        assert getattr(loaded, fact) == getattr(saved, fact)
    assert list(loaded.dropped.items()) == list(saved.dropped.items())
    assert loaded.left_out_classes == saved.left_out_classes


def test_a_folder_of_an_earlier_version_still_loads(tmp_path: Path) -> None:
    """It knows nothing of dates and merged labels."""
    dataset().save(tmp_path)
    facts = json.loads((tmp_path / "data.json").read_text())
    for name in ("dates", "merged_by", "original_names"):
        del facts[name]
    (tmp_path / "data.json").write_text(json.dumps(facts))
    loaded = Dataset.load(tmp_path)
    assert (loaded.dates, loaded.merged_by, loaded.original_names) == ({}, "", ())
    assert loaded.train.original is None
    assert loaded.fingerprint == dataset().fingerprint


def test_groups_are_kept_with_their_rows(tmp_path: Path) -> None:
    """The folds of a check of the labels need them. Older folders have none."""
    plain = dataset()
    grouped = {
        name: replace(texts, group=[f"{name} {row % 2}" for row in range(len(texts))])
        for name, texts in plain.splits().items()
    }
    replace(plain, **grouped, group_column="author").save(tmp_path)
    loaded = Dataset.load(tmp_path)
    assert loaded.train.group == ["train 0", "train 1", "train 0", "train 1"]
    assert loaded.fingerprint == plain.fingerprint
    pd.read_parquet(tmp_path / "data.parquet").drop(columns="group").to_parquet(tmp_path / "data.parquet")
    assert Dataset.load(tmp_path).train.group is None


def test_a_saved_order_of_labels_stays(tmp_path: Path) -> None:
    """An adapter's outputs have the order of its sweep, which once was that of texts for numbers too."""
    names = ("1", "10", "2")
    before = replace(dataset(), label_names=names, fingerprint=fingerprint(dataset().splits(), names))
    before.save(tmp_path)
    assert Dataset.load(tmp_path).label_names == names


def test_rows_that_were_changed_after_saving_are_refused(tmp_path: Path) -> None:
    dataset().save(tmp_path)
    rows = pd.read_parquet(tmp_path / "data.parquet")
    rows.loc[0, "label"] = "ü"
    rows.to_parquet(tmp_path / "data.parquet")
    with pytest.raises(DataError, match="the rows are not the ones that were saved"):
        Dataset.load(tmp_path)


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold a sweep's prepared data"):
        Dataset.load(tmp_path)
    dataset().save(tmp_path)
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(DataError, match="does not hold a sweep's prepared data"):
        Dataset.load(tmp_path)


def test_the_fingerprint_sees_texts_pairs_labels_splits_and_order() -> None:
    def of(**changes: Texts) -> str:
        return fingerprint(dataset().splits() | changes, ("1", "NA", "ü"))

    one = dataset().train
    assert of() == of() == dataset().fingerprint
    assert len(of()) == 64
    changed = [
        of(train=Texts([*one.text[:3], "other"], one.pair, one.labels)),
        of(train=Texts(one.text, None, one.labels)),
        of(train=Texts(one.text, one.pair, one.labels[::-1])),
        of(train=Texts(one.text[::-1], one.pair, one.labels)),
        of(train=dataset().test, test=one),
        fingerprint(dataset().splits(), ("1", "NA", "u")),
    ]
    assert len({of(), *changed}) == 7


def test_the_summary_counts() -> None:
    summary = describe(dataset())
    assert summary.rows == {"train": 4, "validation": 1, "test": 3}
    assert (summary.classes, summary.largest, summary.smallest) == (3, ("NA", 4), ("ü", 1))
    assert summary.majority_accuracy == pytest.approx(1 / 3)
    assert summary_lines(summary) == [
        "news.json: 1,300 rows read",
        "dropped: no text 2, a same text 1",
        "classes left out (too few rows for every split): tiny (2 rows)",
        "rows: train 4, validation 1, test 3",
        "3 classes, the largest NA (4 rows), the smallest ü (1 row)",
        "always predicting the most frequent class: 33.3% of the test rows correct",
    ]


def test_notes_name_labels_that_look_alike_and_a_small_validation_split() -> None:
    data = replace(dataset(), label_names=("Spam", "spam", "tin\u200by"))
    alike, small = data_notes(describe(data))
    assert alike == (
        "labels that look alike are classes of their own: 'Spam' (3 rows) and 'spam' (4 rows); "
        r"'tin\u200by' (1 row) and 'tiny' (2 rows). If they are one class, correct the file or merge them with "
        "--merge-labels"
    )
    assert small.startswith("the validation split has 1 row: one of them is 100.0 points of accuracy")


@pytest.mark.parametrize(("rows", "points"), [(60, "1.7"), (199, "0.5"), (200, None)])
def test_a_validation_split_is_small_below_200_rows(rows: int, points: str | None) -> None:
    summary = replace(describe(dataset()), rows={"train": 800, "validation": rows, "test": 9})
    notes = data_notes(summary)
    assert [f"has {rows} rows: one of them is {points} points" in note for note in notes] == [True] * bool(
        points
    )
    # Nobody can add rows to the demonstration.
    assert data_notes(replace(summary, source=SAMPLE_SOURCE)) == []


def test_unknown_tokens_are_noted_above_one_in_twenty() -> None:
    lengths = {"median": 9, "p95": 12, "max": 20, "truncated": 1}
    assert token_notes({"unknown": 0.05, "unreadable": 0}) == []
    many, texts = token_notes({"unknown": 0.6, "unreadable": 1})
    assert many.startswith("60% of the tokens are unknown to this model's tokenizer")
    assert texts.startswith("1 text without a token that the model knows")
    line = "tokens per row: median 9, 95 % up to 12, longest 20; 1 row truncated at 128"
    assert token_line(lengths | {"unknown": 0.0}, 128) == line
    read = [
        token_line(lengths | {"unknown": 0.0, "chunks": 3}, 128, long) for long in ("head-tail", "chunks")
    ]
    assert [text.partition("; ")[2] for text in read] == [
        "1 row longer than 128, read without the middle",
        "1 row longer than 128, read in 3 chunks",
    ]
    assert token_line(lengths | {"unknown": 0.6}, 128) == f"{line}, 60.0% of the tokens unknown"
