"""Several labels a text: lists, separated fields and columns of 0 and 1, read into splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.label_sets import label_matrix, labels_of, set_of
from lorasweep.training.data.load import load_dataset
from lorasweep.training.data.summary import data_notes, describe, summary_lines
from lorasweep.training.errors import LorasweepError
from lorasweep.training.settings import DataSettings

NAMES = ("arts", "health", "politics")


def sets(rows: int = 200, seed: int = 0) -> list[list[str]]:
    """Random sets of labels, some of them empty."""
    random = np.random.default_rng(seed)
    return [
        [name for name, share in zip(NAMES, (0.5, 0.2, 0.35), strict=True) if random.random() < share]
        for _ in range(rows)
    ]


def texts(rows: int) -> list[str]:
    return [f"text {number}" for number in range(rows)]


def read(path: Path, **settings: Any) -> Dataset:
    return load_dataset(DataSettings(**{"path": str(path), **settings}), 0)


def rows_of(dataset: Dataset) -> dict[str, list[str]]:
    """Text → its labels, over all splits."""
    return {
        text: labels
        for split in dataset.splits().values()
        for text, labels in zip(split.text, labels_of(split.labels, dataset.label_names), strict=True)
    }


def as_files(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The same rows in each form, with the settings that read it."""
    given = sets()
    frame = pd.DataFrame({"text": texts(len(given)), "labels": given})
    frame.to_parquet(folder / "a.parquet")
    frame.to_json(folder / "a.jsonl", orient="records", lines=True)
    frame.to_csv(folder / "python.csv", index=False)
    frame.assign(labels=frame["labels"].map(json.dumps)).to_csv(folder / "json.csv", index=False)
    frame.assign(labels=frame["labels"].map("; ".join)).to_csv(folder / "separated.csv", index=False)
    flags = frame.assign(**{name: [int(name in one) for one in given] for name in NAMES}).drop(
        columns="labels"
    )
    flags.to_csv(folder / "flags.csv", index=False)
    flags.astype(dict.fromkeys(NAMES, bool)).to_parquet(folder / "flags.parquet")
    return [
        (folder / "a.parquet", {}),
        (folder / "a.jsonl", {}),
        (folder / "python.csv", {}),
        (folder / "json.csv", {}),
        (folder / "separated.csv", {"label_separator": ";"}),
        (folder / "flags.csv", {"label": NAMES}),
        (folder / "flags.parquet", {"label": NAMES[::-1]}),
    ]


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    """Also the same splits, and a text without a label keeps none."""
    expected = dict(zip(texts(200), sets(), strict=True))
    assert [] in expected.values()
    found = [read(path, **settings) for path, settings in as_files(tmp_path)]
    for dataset in found:
        assert dataset.multi_label
        assert dataset.label_names == NAMES
        assert rows_of(dataset) == expected
        assert dataset.fingerprint == found[0].fingerprint
    assert {dataset.label_separator for dataset in found} == {"", ";"}
    assert found[-2].label_column == "arts, health, politics"


def test_splits_keep_the_shares_of_the_labels(tmp_path: Path) -> None:
    (path, settings), *_ = as_files(tmp_path)
    dataset = read(path, **settings)
    assert [len(split) for split in dataset.splits().values()] == [160, 20, 20]
    shares = np.concatenate([split.labels for split in dataset.splits().values()]).mean(axis=0)
    for split in dataset.splits().values():
        assert split.labels.dtype == np.uint8
        assert split.labels.mean(axis=0) == pytest.approx(shares, abs=0.03)
    assert read(path).fingerprint == dataset.fingerprint
    assert load_dataset(DataSettings(path=str(path)), 1).fingerprint != dataset.fingerprint


def test_a_saved_folder_keeps_the_sets(tmp_path: Path) -> None:
    dataset = read(as_files(tmp_path)[4][0], label_separator=";")
    dataset.save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved")
    assert again.fingerprint == dataset.fingerprint
    assert (again.multi_label, again.label_separator, rows_of(again)) == (True, ";", rows_of(dataset))


def test_the_plan_tells_how_many_labels_texts_have(tmp_path: Path) -> None:
    summary = describe(read(as_files(tmp_path)[0][0]))
    sizes = [len(one) for one in sets()]
    assert summary.labels_per_text == pytest.approx(np.mean(sizes))
    lines = summary_lines(summary)
    assert f"several labels a text: {np.mean(sizes):.2f} on average, 8 different sets; " in "\n".join(lines)
    assert f"{sizes.count(0)} texts without a label" in "\n".join(lines)
    assert "3 labels, the largest arts" in "\n".join(lines)
    assert lines[-1].startswith("always predicting the most frequent set of labels: ")


def test_labels_that_look_alike_and_constant_ones_are_named(tmp_path: Path) -> None:
    given = [["news", *(["Arts"] if n % 2 else ["arts"]), *(["x"] if n % 3 else [])] for n in range(60)]
    frame = pd.DataFrame({"text": texts(60), "labels": given})
    notes = " ".join(data_notes(describe(load_dataset(DataSettings(), 0, {"train": frame}))))
    assert "labels that look alike are classes of their own: 'Arts' (30 rows) and 'arts' (30 rows)" in notes
    assert "every training text has 'news': when not, cannot be learnt" in notes


def test_numbers_are_labels_and_sort_as_such() -> None:
    given = [[2.0, 10] if n % 2 else ["10"] if n % 3 else [] for n in range(60)]
    dataset = load_dataset(DataSettings(), 0, {"train": pd.DataFrame({"text": texts(60), "labels": given})})
    assert dataset.label_names == ("2", "10")
    assert rows_of(dataset)["text 1"] == ["2", "10"]


def test_unknown_labels_and_rare_ones_are_left_out(tmp_path: Path) -> None:
    """Texts of a rare label stay, without it."""
    given: list[Any] = sets()
    given[0], given[1] = ["rare", "arts"], ["rare"]
    given[2] = None
    frame = pd.DataFrame({"text": texts(200), "labels": given})
    dataset = load_dataset(DataSettings(), 0, {"train": frame})
    assert dataset.dropped == {"no label": 1}
    assert dataset.left_out_classes == {"rare": 2}
    assert (rows_of(dataset)["text 0"], rows_of(dataset)["text 1"]) == (["arts"], [])
    assert "labels left out (too few rows for every split): rare (2 rows)" in summary_lines(describe(dataset))
    kept = load_dataset(DataSettings(keep_small_classes=True), 0, {"train": frame})
    assert rows_of(kept)["text 1"] == ["rare"]


def test_competitions_hide_labels_with_minus_one(tmp_path: Path) -> None:
    rows = [f"text {n},{n % 2},{int(n % 3 == 0)}\n" for n in range(60)] + ["text 60,-1,-1\n", "text 61,1,\n"]
    (tmp_path / "a.csv").write_text("text,toxic,threat\n" + "".join(rows))
    dataset = read(tmp_path / "a.csv", label=("toxic", "threat"))
    assert dataset.dropped == {"no label": 2}
    assert rows_of(dataset)["text 3"] == ["threat", "toxic"]


def test_parts_dates_and_groups_work_with_sets() -> None:
    given = sets(400)
    frame = pd.DataFrame(
        {
            "text": texts(400),
            "labels": given,
            "date": pd.date_range("2024-01-01", periods=400).strftime("%Y-%m-%d"),
            "author": [f"author {n % 80}" for n in range(400)],
        }
    )
    part = load_dataset(DataSettings(max_train_rows=50, max_validation_rows=10), 0, {"train": frame})
    assert (len(part.train), len(part.validation)) == (50, 10)
    assert part.train.labels.mean(axis=0) == pytest.approx(label_means(given), abs=0.03)
    dated = load_dataset(DataSettings(split_by="date"), 0, {"train": frame})
    assert dated.test.text[-1] == "text 399"
    assert dated.multi_label
    grouped = load_dataset(DataSettings(group="author"), 0, {"train": frame})
    authors = [{int(text.split()[1]) % 80 for text in split.text} for split in grouped.splits().values()]
    assert not authors[0] & authors[1] | authors[0] & authors[2] | authors[1] & authors[2]
    assert [len(split) for split in grouped.splits().values()] == pytest.approx([320, 40, 40], abs=10)
    for split in grouped.splits().values():
        assert split.labels.mean(axis=0) == pytest.approx(label_means(given), abs=0.08)


def label_means(given: list[list[str]]) -> np.ndarray:
    means: np.ndarray = label_matrix([json.dumps(sorted(one)) for one in given], NAMES).mean(axis=0)
    return means


def test_a_label_that_only_newer_rows_have_is_left_out() -> None:
    older = [["old", "all"] if n % 3 else ["all"] for n in range(90)]
    given = older + [["new", "all"] if n % 2 else ["old"] for n in range(10)]
    dates = pd.date_range("2024-01-01", periods=100).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"text": texts(100), "labels": given, "date": dates})
    dataset = load_dataset(DataSettings(split_by="date"), 0, {"train": frame})
    assert dataset.label_names == ("all", "old")
    assert dataset.left_out_classes == {"new": 5}
    assert rows_of(dataset)["text 99"] == ["all"]
    frame["labels"] = [["old", "all"]] * 90 + given[90:]
    with pytest.raises(LorasweepError, match=r"every text has the same labels \('all', 'old'\)"):
        load_dataset(DataSettings(split_by="date"), 0, {"train": frame})


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            {"labels": [["a"], [["b"]]]},
            {},
            "DataFrame, row 2: column 'labels' holds [['b']], not a list of labels",
        ),
        ({"labels": ['["a"]', "[b]"]}, {"label": "labels"}, "DataFrame, row 2: column 'labels' holds '[b]'"),
        (
            {"a": [0, 1], "b": [1, 2]},
            {"label": ("a", "b")},
            "DataFrame, row 2: column 'b' holds '2'; --label with",
        ),
        ({"a": [0, 1], "b": [1, 0]}, {"label": ("a", "a")}, "--label 'a', 'a': name each column once"),
        ({"a": [0, 1], "b": [1, 0]}, {"label": ("a", "c")}, "DataFrame: no column 'c' (--label)"),
        (
            {"labels": [["a"], ["b"]]},
            {"label_separator": ";"},
            "--label-separator ';': column 'labels' holds lists, which need none",
        ),
        (
            {"a": [0, 1], "b": [1, 0]},
            {"label": ("a", "b"), "label_separator": ";"},
            "--label-separator ';': --label names 2 columns, which need none",
        ),
        (
            {"labels": ["a,b", "a"]},
            {"label_separator": ";"},
            "--label-separator ';': no field of column 'labels' holds it",
        ),
        ({"labels": ["a;b", "a"]}, {"label_separator": " "}, "--label-separator ' ': name the character"),
        (
            {"labels": [["a"], ["b"]]},
            {"merge_labels": "huffpost"},
            "--merge-labels huffpost is for one label a text",
        ),
        ({"labels": [["a"], ["a"]]}, {}, "the only label is 'a'"),
        ({"labels": [[], []]}, {}, "column 'labels' is empty in every row"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    columns: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    frame = pd.DataFrame({"text": texts(40), **{name: values * 20 for name, values in columns.items()}})
    with pytest.raises(LorasweepError) as error:
        load_dataset(DataSettings(**settings), 0, {"train": frame})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_of_class_labels_get_their_names(tmp_path: Path) -> None:
    """As `datasets` writes them, in each of its forms."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    given = [[0, 2], [1], []] * 20
    label = {"names": list(NAMES), "_type": "ClassLabel"}
    for feature in ({"feature": label, "_type": "Sequence"}, {"feature": label, "_type": "List"}, [label]):
        schema = pa.schema(
            {"text": pa.string(), "labels": pa.list_(pa.int64())},
            metadata={"huggingface": json.dumps({"info": {"features": {"labels": feature}}})},
        )
        pq.write_table(pa.table({"text": texts(60), "labels": given}, schema=schema), tmp_path / "a.parquet")
        dataset = read(tmp_path / "a.parquet")
        assert dataset.label_names == NAMES
        assert rows_of(dataset)["text 0"] == ["arts", "politics"]


def test_a_given_split_must_have_the_labels(tmp_path: Path) -> None:
    train = pd.DataFrame({"text": texts(60), "labels": sets(60)})
    test = pd.DataFrame({"text": ["one", "two"], "labels": [["arts"], ["sports"]]})
    with pytest.raises(LorasweepError, match="the test split holds the label 'sports' that no usable"):
        load_dataset(DataSettings(), 0, {"train": train, "test": test})
    test["labels"] = [["arts"], ["health"]]
    with pytest.raises(LorasweepError, match="the test split has no row with the label 'politics'"):
        load_dataset(DataSettings(), 0, {"train": train, "test": test})
    test["labels"] = [[], []]
    with pytest.raises(LorasweepError, match="test rows: column 'labels' is empty in every row"):
        load_dataset(DataSettings(), 0, {"train": train, "test": test})


def test_sets_are_written_one_way() -> None:
    assert set_of('["a", "b"]') == ["a", "b"]
    matrix = label_matrix(['["b", "a"]', "[]"], ("a", "b"))
    assert matrix.tolist() == [[1, 1], [0, 0]]
    assert labels_of(matrix, ("a", "b")) == [["a", "b"], []]
