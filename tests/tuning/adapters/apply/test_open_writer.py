"""Files of predictions: values that come back as they were, and files that appear whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorasweep.training.errors import DataError, ExportError, SettingsError
from lorasweep.training.files.tables import RowStream, open_table
from lorasweep.tuning.adapters.apply.predict_file import check_output, open_writer
from lorasweep.tuning.adapters.export.staging import staged_file

ADDED = [("label", pa.string()), ("score", pa.float64())]
ODD = [
    '<a href="x">one, two</a>',
    "line\nfeed",
    "carriage\rreturn",
    "both\r\n",
    "tab\there",
    ' "quoted" ',
    "é 😀 \u2028",
    "",
]


def write(out: Path, stream: RowStream, added: Sequence[tuple[str, pa.DataType]] = ADDED) -> Path:
    """All of a stream's rows, two at a time, with a label and a score that go by the row's number."""
    row = 0
    with open_writer(out, out.suffix, stream, added) as write_rows:
        for table in stream.chunks(2):
            numbers = range(row, row + len(table.frame))
            values = [[f"L{i}" if i else None for i in numbers], [i / 8 for i in numbers]]
            columns = [column.tolist() for _, column in table.frame.items()]
            write_rows([*columns, *values[: len(added)]])
            row += len(table.frame)
    return out


def texts(tmp_path: Path) -> RowStream:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in ODD))
    return open_table(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_any_text_comes_back_from_csv(tmp_path: Path, suffix: str) -> None:
    out = write(tmp_path / f"out{suffix}", texts(tmp_path))
    separator = "," if suffix == ".csv" else "\t"
    with out.open(newline="") as file:
        header, *rows = csv.reader(file, delimiter=separator)
    assert header == ["text", "n", "label", "score"]
    assert [row[0] for row in rows] == ODD
    assert [row[1:] for row in rows[:2]] == [["1", "", "0.0"], ["1", "L1", "0.125"]]
    frame = pd.read_csv(out, sep=separator, keep_default_na=False, dtype=str, lineterminator=None)
    assert frame["text"].tolist() == ODD
    # And our own reader takes it in again.
    again = [row for table in open_table(out).chunks(3) for row in table.frame.values.tolist()]
    assert [row[0] for row in again] == ODD


def test_any_text_comes_back_from_json_lines_and_parquet(tmp_path: Path) -> None:
    out = write(tmp_path / "out.jsonl", texts(tmp_path))
    rows = [json.loads(line) for line in out.read_text().split("\n") if line]
    assert [row["text"] for row in rows] == ODD
    assert rows[1] == {"text": ODD[1], "n": 1, "label": "L1", "score": 0.125}
    assert rows[0]["label"] is None
    table = pq.read_table(write(tmp_path / "out.parquet", texts(tmp_path)))
    assert table.schema.types == [pa.string(), pa.int64(), pa.string(), pa.float64()]
    assert table.to_pylist() == rows


def test_what_a_json_object_lacks_stays_away(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    rows: list[dict[str, Any]] = [{"a": 1, "x": [1, {"y": "z"}]}, {"a": None}, {"x": "w"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    out = write(tmp_path / "out.jsonl", open_table(path), ())
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    out = write(tmp_path / "out.csv", open_table(path), ())
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "x"], ["1", '[1, {"y": "z"}]'], ["", ""], ["", "w"]]
    out = write(tmp_path / "out.parquet", open_table(path), ())
    assert pq.read_table(out).to_pydict() == {"a": [1, None, None], "x": ['[1, {"y": "z"}]', None, "w"]}


def test_parquet_goes_through_unchanged(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", None, "c"],
            "when": pa.array([datetime(2024, 1, 2, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
            "count": pa.array([2**53 + 1, None, 3], pa.int64()),
            "share": [0.5, float("nan"), None],
            "tags": [["x"], [], None],
            "raw": [b"\xff", b"", None],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    out = write(tmp_path / "out.parquet", open_table(tmp_path / "in.parquet"))
    found = pq.read_table(out).drop_columns(["label", "score"])
    assert found.schema.types == table.schema.types
    assert repr(found.to_pylist()) == repr(table.to_pylist())  # NaN is not equal to itself
    out = write(tmp_path / "out.jsonl", open_table(tmp_path / "in.parquet"))
    first, second, _ = (json.loads(line) for line in out.read_text().splitlines())
    assert (first["when"], first["count"], first["tags"]) == ("2024-01-02T00:00:00+00:00", 2**53 + 1, ["x"])
    assert second["share"] is None
    out = write(tmp_path / "out.csv", open_table(tmp_path / "in.parquet"))
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1][1:5] == ["2024-01-02T00:00:00+00:00", str(2**53 + 1), "0.5", '["x"]']
    assert rows[2] == ["", "", "", "", "[]", "", "L1", "0.125"]


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,,\nfilm,1,2\n")
    assert write(tmp_path / "out.csv", open_table(path)).read_text() == "text,,,label,score\nfilm,1,2,,0.0\n"
    for name in ("out.jsonl", "out.parquet"):
        with pytest.raises(DataError, match=r"two columns ''; write a \.csv"):
            open_writer(tmp_path / name, Path(name).suffix, open_table(path), ADDED)


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'\.xlsx' is not one of \.csv"):
        check_output(tmp_path / "out.xlsx")
    (tmp_path / "out.CSV").symlink_to(tmp_path / "gone")
    with pytest.raises(ExportError, match="exists already"):
        check_output(tmp_path / "out.CSV")
    (tmp_path / "file").touch()
    with (
        pytest.raises(ExportError, match=r"file/out\.csv: cannot be written \("),
        staged_file(tmp_path / "file" / "out.csv"),
    ):
        pass


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.csv"
    with staged_file(out) as stage:
        stage.write_text("whole")
        assert not out.exists()
        assert stage.parent == out.parent  # on the same disk, so that it can be renamed
    assert out.read_text() == "whole"
    assert out.stat().st_mode & 0o444 == 0o444 & ~current_umask()
    assert list(out.parent.iterdir()) == [out]

    def fail() -> None:
        with staged_file(tmp_path / "other" / "out.csv") as stage:
            stage.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not (tmp_path / "other").exists()


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(ExportError, match="appeared while"), staged_file(out):
        out.write_text("somebody's")
    assert out.read_text() == "somebody's"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fill() -> None:
        with staged_file(tmp_path / "out.csv") as stage:
            stage.unlink()
            stage.symlink_to("/dev/full")
            write(stage, texts(tmp_path))

    with pytest.raises(ExportError, match=r"out\.csv: cannot be written \(No space left"):
        fill()
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
