"""JSON as one object: arrays of rows under `data` or the names of splits."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorasweep.training.errors import DataError
from lorasweep.training.files.tables import open_table
from lorasweep.training.files.whole_tables import WHOLE, read_table, read_tables

ROWS = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]


def written(path: Path, content: Any, indent: int | None = None) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=indent), "utf-8")
    return path


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("more", [{}, {"version": "1.0", "labels": ["a", "b"], "meta": {"n": 2}}])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_rows_under_data(tmp_path: Path, indent: int | None, more: dict[str, Any], suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", more | {"data": ROWS}, indent)
    assert read_table(path).frame.to_dict("records") == ROWS
    assert [row for table in open_table(path).chunks(1) for row in table.frame.to_dict("records")] == ROWS


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev", "Dev"])
def test_splits_are_named_by_their_keys(tmp_path: Path, indent: int | None, validation: str) -> None:
    path = written(
        tmp_path / "a.json", {"test": ROWS[:1], validation: ROWS[1:], "train": ROWS, "n": 4}, indent
    )
    tables = read_tables(path)
    assert {split: table.frame.to_dict("records") for split, table in tables.items()} == {
        "train": ROWS,
        "validation": ROWS[1:],
        "test": ROWS[:1],
    }
    assert list(tables) == ["train", "validation", "test"]
    assert tables["validation"].name == f"{path}, {validation}"
    # All rows, as for predictions.
    assert open_table(path).rows == 4
    with pytest.raises(DataError, match="holds the splits train, validation, test where one table is wanted"):
        read_table(path)


def test_a_few_rows_of_a_split_that_are_none_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", {"train": ROWS * 20 + [3], "test": []})
    assert {split: table.unparsable for split, table in read_tables(path).items()} == {"train": 1}


@pytest.mark.parametrize(
    "row",
    [
        {"text": "x", "data": ["one", "two"]},
        {"text": "x", "train": 1},
        {"data": {"text": "x"}},
        {"text": "x", "words": [{"w": "one"}]},
    ],
)
def test_an_object_that_is_a_row_stays_one(tmp_path: Path, row: dict[str, Any]) -> None:
    for content in (json.dumps(row), "\n".join([json.dumps(row)] * 2)):
        path = written(tmp_path / "a.jsonl", content)
        tables = read_tables(path)
        assert list(tables) == [WHOLE]
        assert tables[WHOLE].frame.to_dict("records")[0] == row


def test_lines_of_objects_that_look_like_a_whole_file_are_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", "\n".join([json.dumps({"data": ROWS})] * 2))
    assert len(read_table(path).frame) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ROWS, "dev": ROWS, "val": ROWS}, "'dev', 'val' both mean the validation split"),
        ({"train": ROWS, "extra": ROWS}, "'extra' names no split; name them train, validation, test"),
        ('{"train": [{"text": "x"},\n]}', "line 1: .* one object of such arrays"),
        ('{"data": [[1]]}', None),
    ],
)
def test_arrays_that_are_not_clear(tmp_path: Path, content: Any, message: str | None) -> None:
    path = written(tmp_path / "a.json", content)
    if message is None:
        assert read_table(path).frame.columns.tolist() == ["data"]
        return
    with pytest.raises(DataError, match=message):
        read_tables(path)
