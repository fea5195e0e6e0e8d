"""Corrected labels: training rows alone get them, the splits stay, and what cannot be is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.errors import DataError
from lorasweep.training.settings import DataSettings

LABELS = ("art", "law", "sea")


@pytest.fixture
def data(tmp_path: Path) -> DataSettings:
    rows = [{"text": f"Text  number {n}", "label": LABELS[n % 3]} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return DataSettings(path=str(tmp_path / "rows.jsonl"))


def load(data: DataSettings, *files: Path) -> Dataset:
    return load_dataset(data.model_copy(update={"corrections": tuple(map(str, files))}), seed=0)


def write(file: Path, *lines: str, header: str = "text,label,correct", encoding: str = "utf-8") -> Path:
    file.write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
    return file


def test_training_rows_are_corrected_and_splits_stay(data: DataSettings, tmp_path: Path) -> None:
    plain = load_dataset(data, seed=0)
    first, second = plain.train.text[:2]
    held_out = plain.test.text[0]
    labels = [plain.label_names[label] for label in plain.train.labels[:2]]
    right = [LABELS[(LABELS.index(label) + 1) % 3] for label in labels]
    lines = [
        f"{first.upper().replace('  ', ' ')},x,{right[0]}",
        f"{second},x,",
        f"{held_out},x,art",
        "gone,x,law",
    ]
    found = load(data, write(tmp_path / "a.csv", *lines))
    changed = np.flatnonzero(found.train.labels != plain.train.labels)
    assert changed.tolist() == [0]
    assert found.label_names[found.train.labels[0]] == right[0]
    for split in ("train", "validation", "test"):
        assert found.splits()[split].text == plain.splits()[split].text
    assert (found.test.labels == plain.test.labels).all()
    assert found.fingerprint != plain.fingerprint
    corrected, lost = found.notes
    assert corrected.endswith("a.csv: 1 label of the training rows corrected")
    assert f"2 corrections without a training row of this text: '{held_out}', 'gone'" in lost


def test_a_later_file_holds(data: DataSettings, tmp_path: Path) -> None:
    first, second = load_dataset(data, seed=0).train.text[:2]
    one = write(tmp_path / "one.csv", f"{first},x,art", f"{second},x,sea")
    found = load(data, one, write(tmp_path / "two.csv", f"{first},x,law"))
    assert [found.label_names[label] for label in found.train.labels[:2]] == ["law", "sea"]


@pytest.mark.parametrize("mark", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_as_a_spreadsheet_saves_it(data: DataSettings, tmp_path: Path, mark: str, encoding: str) -> None:
    text = load_dataset(data, seed=0).train.text[0]
    line = mark.join([f'"{text}"', "x", "sea"])
    header = mark.join(["text", "label", "correct"])
    found = load(data, write(tmp_path / "a.csv", line, header=header, encoding=encoding))
    assert found.label_names[found.train.labels[0]] == "sea"


def test_two_texts_a_row_are_both_compared(tmp_path: Path) -> None:
    rows = [{"title": "The same", "text": f"number {n}", "label": LABELS[n % 3]} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataSettings(path=str(tmp_path / "rows.jsonl"))
    plain = load_dataset(data, seed=0)
    assert plain.train.pair is not None
    right = LABELS[(plain.train.labels[3] + 1) % 3]
    line = f"The same,{plain.train.pair[3]},{right}"
    found = load(data, write(tmp_path / "a.csv", line, header="text,second_text,correct"))
    assert np.flatnonzero(found.train.labels != plain.train.labels).tolist() == [3]


def test_merged_labels_are_corrected_by_either_name(data: DataSettings, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("land: [art, law]\n")
    merged = data.model_copy(update={"merge_labels": str(tmp_path / "map.yaml")})
    plain = load_dataset(merged, seed=0)
    sea = [plain.train.text[row] for row in np.flatnonzero(plain.train.labels == 1)]
    found = load(merged, write(tmp_path / "a.csv", f"{sea[0]},x,law", f"{sea[1]},x,land"))
    assert found.original_names == plain.original_names == LABELS
    rows = [found.train.text.index(text) for text in sea[:2]]
    assert [found.label_names[found.train.labels[row]] for row in rows] == ["land", "land"]
    assert found.train.original is not None
    assert LABELS[found.train.original[rows[0]]] == "law"
    assert LABELS[found.train.original[rows[1]]] in ("art", "law")
    assert found.merge_index().tolist() == [0, 0, 1]


def test_numbers_are_labels_as_a_spreadsheet_writes_them(tmp_path: Path) -> None:
    rows = [{"text": f"number {n}", "label": n % 2} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataSettings(path=str(tmp_path / "rows.jsonl"))
    plain = load_dataset(data, seed=0)
    row = int(np.flatnonzero(plain.train.labels == 0)[0])
    found = load(data, write(tmp_path / "a.csv", f"{plain.train.text[row]},0,1.0"))
    assert np.flatnonzero(found.train.labels != plain.train.labels).tolist() == [row]
    assert found.label_names == ("0", "1")


def test_what_cannot_be_is_one_line(data: DataSettings, tmp_path: Path) -> None:
    train = load_dataset(data, seed=0).train
    text, file = train.text[0], tmp_path / "a.csv"
    all_sea = [f"{train.text[row]},x,art" for row in np.flatnonzero(train.labels == 2)]
    for lines, said in (
        (
            [f"{text},x,", f"{text},x,art ", f"{text},x,arts"],
            r"a\.csv, row 3: 'arts' is no label of the data",
        ),
        ([f"{text},x,"], "'correct' is empty in every row"),
        ([f"{text},x,art", f"{text.upper()},x,law"], "rows 1, 2 correct the same text to 'art', 'law'"),
        (["none,x,art"], r"none of its 1 corrected text is a training row \('none'\)"),
        (all_sea, "no training row is left of 'sea'"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            load(data, write(file, *lines))
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no column 'correct'"):
        load(data, write(file, f"{text},x", header="text,label"))
    with pytest.raises(DataError, match=r"nothing\.csv"):
        load(data, tmp_path / "nothing.csv")
