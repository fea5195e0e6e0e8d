"""Tables read in chunks: the rows and the refusals of the whole-file reader, without the whole file."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorasweep.training.data.columns import texts_and_pairs
from lorasweep.training.errors import DataError
from lorasweep.training.files.tables import RowStream, Table, open_table
from lorasweep.training.files.whole_tables import read_table

ROWS = [
    {"text": 'He said "no", twice', "label": "NA"},
    {"text": "two\nlines\tand a tab", "label": "null"},
    {"text": "é 😀 \u2028 None", "label": "None"},
    {"text": "carriage\r\nreturn", "label": ""},
    {"text": "", "label": '"'},
]
FRAME = pd.DataFrame(ROWS)


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def lines(end: str = "\n") -> bytes:
    return end.join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()


CONTENT: dict[str, bytes] = {
    "a.jsonl": lines() + b"\n\n",
    "b.json": b"\xef\xbb\xbf" + lines("\r\n"),
    "c.ndjson.gz": gzip.compress(lines()),
    "d.json.xz": lzma.compress(lines()),
    "e.csv": FRAME.to_csv(index=False).encode("utf-8-sig"),
    "f.csv.gz": gzip.compress(FRAME.to_csv(index=False).encode()),
    "g.tsv": FRAME.to_csv(index=False, sep="\t").encode(),
    "h.tsv.xz": lzma.compress(FRAME.to_csv(index=False, sep="\t").encode()),
    "i.parquet": parquet(FRAME),
    "j.parquet": parquet(FRAME.iloc[::-1].sort_index(ascending=True).set_index(pd.Index([9, 7, 5, 3, 1]))),
    "k.json": json.dumps(ROWS, indent=1).encode(),
    "l.parquet.gz": gzip.compress(parquet(FRAME)),
}


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def records(stream: RowStream, rows: int) -> list[dict[str, Any]]:
    found = [row for table in stream.chunks(rows) for row in table.frame.values.tolist()]
    return [dict(zip(stream.columns, row, strict=True)) for row in found]


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("name", CONTENT)
def test_every_format_gives_its_rows_in_chunks(tmp_path: Path, name: str, rows: int) -> None:
    stream = open_table(written(tmp_path / name, CONTENT[name]))
    assert (stream.columns, stream.rows) == (("text", "label"), 5)
    assert records(stream, rows) == ROWS
    assert records(stream, rows) == ROWS  # and a second time
    assert max(len(table.frame) for table in stream.chunks(2)) == 2
    assert set(stream.types) <= {pa.string(), pa.large_string()}


@pytest.mark.parametrize("name", ["a.zip", "b.txt"])
def test_what_cannot_be_read_in_parts_is_read_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "b.txt":
        path.write_text("film\n\nbank\n")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.csv", "text\nfilm\nbank\n")
    stream = open_table(path)
    assert (stream.columns, stream.rows) == (("text",), 2)
    assert records(stream, 1) == [{"text": "film"}, {"text": "bank"}]


def test_json_objects_keep_their_types_and_what_they_lack(tmp_path: Path) -> None:
    content = [
        {"a": 1, "b": [1, {"x": 2}]},
        {"a": None, "c": 2.5},
        {"a": 3, "c": 1, "d": True, "e": "x"},
        {"e": 2},
    ]
    stream = open_table(written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, content))))
    assert stream.columns == ("a", "b", "c", "d", "e")
    assert stream.types == (pa.int64(), pa.string(), pa.float64(), pa.bool_(), pa.string())
    found = records(stream, 2)
    assert [{k: v for k, v in record.items() if v is not pd.NA} for record in found] == content
    assert type(found[0]["a"]) is int


def test_integers_beyond_64_bits_are_texts(tmp_path: Path) -> None:
    stream = open_table(written(tmp_path / "a.jsonl", f'{{"a": {2**63}, "b": {2**63 - 1}}}'))
    assert stream.types == (pa.string(), pa.int64())


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    when = datetime(2024, 1, 2, tzinfo=UTC)
    table = pa.table(
        {"n": pa.array([2**53 + 1, None], pa.int64()), "t": pa.array([when, None]), "l": [["a"], []]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    stream = open_table(tmp_path / "a.parquet")
    assert list(stream.types) == table.schema.types
    assert records(stream, 1) == [{"n": 2**53 + 1, "t": when, "l": ["a"]}, {"n": None, "t": None, "l": []}]


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path: Path) -> None:
    stream = open_table(
        written(tmp_path / "a.jsonl", r'{"text": "x\ud83d", "more": [{"\uDe00": "\ud83d\ude00"}]}')
    )
    assert records(stream, 9) == [{"text": "x\ufffd", "more": [{"\ufffd": "😀"}]}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', r"a.jsonl, line 3: Expecting value at character"),
        ("a.jsonl", '{"a": 1}\n7\n', r"line 2: not a JSON object"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff\0"}\n', r"line 2: not UTF-8 text \(byte 0xff\)"),
        ("a.csv", b"text\nfilm\n\xe9\0\n", r"a.csv, line 3: not UTF-8 text \(byte 0xe9\)"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"not a well-formed comma-separated file \(.*line 3, saw 3"),
        ("a.csv", 'a,b\n1,"2\n', r"not a well-formed comma-separated file"),
        ("a.csv", "a,b\n", r"holds no rows"),
        ("a.csv", "", r"holds no rows"),
        ("a.jsonl", "\n\n", r"holds no rows"),
        ("a.json", "[1, 2", r"broken JSON array"),
        ("a.parquet", b"PAR1", r"not a readable Parquet file"),
        ("a.csv.gz", gzip.compress(b"text\nfilm\n" * 999, mtime=0)[:-20], r"is not a complete .gz file"),
        ("a.jsonl.gz", b"text", r"is not a complete .gz file"),
        ("a.tsv.xz", b"text", r"is not a complete .xz file"),
        ("a.docx", b"text", r"the format is told by the suffix"),
    ],
)
def test_broken_files_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_table(written(tmp_path / name, content))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_table(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="is a folder"):
        open_table(tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_file_without_a_header(tmp_path: Path, name: str) -> None:
    separator = "," if name == "a.csv" else "\t"
    path = written(tmp_path / name, f"film{separator}1\nbank{separator}2\n")
    stream = open_table(path, ("text", "n"))
    assert records(stream, 1) == [{"text": "film", "n": "1"}, {"text": "bank", "n": "2"}]
    assert not stream.heading().header_guessed
    assert open_table(path).heading().header_guessed
    # Names that repeat the header do not make it a row.
    assert records(open_table(path, ("film", "1")), 9) == [{"film": "bank", "1": "2"}]
    with pytest.raises(DataError, match=r"has 2 columns .* --columns names 3"):
        open_table(path, ("a", "b", "c"))


def test_columns_are_for_files_that_name_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--columns is for CSV and TSV"):
        open_table(written(tmp_path / "a.jsonl", '{"a": 1}'), ("b",))


@pytest.mark.parametrize(
    "content",
    [
        'text\tn\n"Quoted" start\t1\nshe said "no\t2\n"whole ""one"""\t3\n',
        'text\tn\n"tab\there"\t1\n',
        "a,b,a\n1,2,3\n4,5\n",
    ],
)
def test_odd_files_are_read_as_the_whole_file_reader_does(tmp_path: Path, content: str) -> None:
    path = written(tmp_path / ("a.tsv" if "\t" in content else "a.csv"), content)
    stream, whole = open_table(path), read_table(path).frame
    assert list(stream.columns) == list(whole.columns)
    parts = [table.frame.values.tolist() for table in stream.chunks(1)]
    assert [row for part in parts for row in part] == whole.values.tolist()


def test_a_message_about_a_later_chunk_says_where_it_begins(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n{"text": ["d"]}\n')
    _, later = open_table(path).chunks(2)
    with pytest.raises(DataError, match=r"a\.jsonl, from row 3 on, row 2: column 'text' holds"):
        texts_and_pairs(later, ("text",))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".tsv.gz"])
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr("lorasweep.training.files.tables.SCAN_ROWS", 200)

    def peak(rows: int) -> int:
        frame = pd.DataFrame({"text": [f"{'film star ' * 20}{row}" for row in range(rows)]})
        path = tmp_path / f"{rows}{suffix}"
        if "json" in suffix:
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.assign(n=1).to_csv(path, index=False, sep="\t" if "tsv" in suffix else ",")
        del frame
        tracemalloc.start()
        count = sum(len(table.frame) for table in open_table(path).chunks(100))
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == rows
        return largest

    peak(10)  # what is imported or cached the first time
    assert peak(12_000) < 1.3 * peak(3_000)


def test_texts_of_one_and_of_two_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"a": [" x ", "", None, pd.NA, 3], "b": ["y", "z", None, "w", float("nan")]}, dtype=object
    )
    table = Table(frame, "a.csv")
    assert texts_and_pairs(table, ("a",)) == (["x", "", "", "", "3"], None)
    assert texts_and_pairs(table, ("a", "b")) == (["x", "z", "", "w", "3"], ["y", "", "", "", ""])


def test_pairs_are_those_of_training(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "title,text\nx,y\n,z\nw,\n")
    (table,) = open_table(path).chunks()
    assert texts_and_pairs(table, ("title", "text")) == (["x", "z", "w"], ["y", "", ""])
    assert texts_and_pairs(read_table(path), ("title", "text")) == (["x", "z", "w"], ["y", "", ""])
