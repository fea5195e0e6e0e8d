import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorasweep.training.data.columns import strings
from lorasweep.training.errors import DataError, SettingsError
from lorasweep.training.files.tables import Table, open_table, table_of
from lorasweep.training.files.whole_tables import read_table

ROWS = [
    {"text": 'He said "no", twice', "label": "NA"},
    {"text": "two\nlines\tand a tab", "label": "null"},
    {"text": "é 😀 \u2028 None", "label": "None"},
]


def as_json_lines() -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()


def as_parquet(frame: pd.DataFrame, **options: Any) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", as_json_lines()),
        ("a.json", as_json_lines() + b"\n\n"),
        ("a.ndjson", b"\xef\xbb\xbf" + as_json_lines().replace(b"\n", b"\r\n")),
        ("a.json", b"\n " + json.dumps(ROWS, indent=1).encode()),
        ("a.jsonl", json.dumps(ROWS).encode()),
        ("a.csv", pd.DataFrame(ROWS).to_csv(index=False).encode("utf-8-sig")),
        ("a.tsv", pd.DataFrame(ROWS).to_csv(index=False, sep="\t").encode()),
        ("a.parquet", as_parquet(pd.DataFrame(ROWS))),
        ("a.parquet", as_parquet(pd.DataFrame(ROWS).set_index("text"))),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    table = read_table(written(tmp_path / name, content))
    assert table.frame[["text", "label"]].to_dict("records") == ROWS
    assert table.unparsable == 0


def test_json_keeps_types_and_missing_keys(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"a": 1, "b": true}\n{"a": null}\n')
    assert read_table(path).frame["a"].tolist() == [1, None]


def test_whole_numbers_with_gaps_stay_whole_in_parquet(tmp_path: Path) -> None:
    # Written without pandas, whose own metadata would restore the type.
    pq.write_table(pa.table({"label": [2**53 + 1, None]}), tmp_path / "a.parquet")
    assert int(read_table(tmp_path / "a.parquet").frame["label"][0]) == 2**53 + 1


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", rb'{"a\uDC00": "x\ud800y", "b": "\ud83d\ude00", "c": 1}' + b"\n")
    assert read_table(path).frame.to_dict("records") == [{"a\ufffd": "x\ufffdy", "b": "😀", "c": 1}]


def test_a_few_bad_json_lines_are_counted(tmp_path: Path) -> None:
    lines = ['{"a": "b"}'] * 60
    lines[3], lines[7], lines[9] = "{broken", "[1, 2]", " "
    table = read_table(written(tmp_path / "a.json", "\n".join(lines).encode()))
    assert (len(table.frame), table.unparsable) == (57, 2)


def test_a_first_line_that_is_an_array_is_one_bad_line(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "a.jsonl", b"[1]\n" + b'{"a": "b"}\n' * 30))
    assert (len(table.frame), table.unparsable) == (30, 1)


def test_more_bad_json_lines_than_one_in_twenty_stop_with_the_first(tmp_path: Path) -> None:
    good = ['{"a": "b"}'] * 38
    path = written(
        tmp_path / "a.jsonl", "\n".join([*good[:19], "", "{broken", '"text"', *good[19:]]).encode()
    )
    assert read_table(path).unparsable == 2
    path.write_bytes(path.read_bytes() + b"\n[]")
    refused(
        path,
        "a.jsonl, line 21: Expecting property name enclosed in double quotes at character 2; 3 of 41 rows",
    )
    with pytest.raises(DataError, match="1 of 39 rows, cannot be read"):
        read_table(written(path, "\n".join([*good, "nothing"]).encode()), max_bad_share=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"a": 1},\n{"a": 2]', "line 2: broken JSON array"),
        ("a.json", b"[[1], [2]]", "row 1: not a JSON object; 2 of 2 rows"),
        ("a.json", b"[" * 100_000, "broken JSON array"),
        ("a.jsonl", b'{"a": ' * 100_000, "line 1: maximum recursion depth"),
        ("a.json", b"[]", "holds no rows"),
        ("a.csv", b"text,label\n", "holds no rows"),
        (
            "a.csv",
            b"text,label\none,a\ntwo, three,b\n",
            "comma-separated file (Expected 2 fields in line 3, saw 3)",
        ),
        ("a.csv", b'text,label\n"one,a\n', "a quote is not closed in the row that begins in line 2"),
        ("a.tsv", b"text\tlabel\none\ta\tb\n", "tab-separated file (Expected 2 fields"),
        (
            "a.csv",
            b'text,label\n"two\nlines",a\n\none,a,b\n',
            "comma-separated file (Expected 2 fields in line 5, saw 3)",
        ),
        ("a.csv", b"text,label\n\xe9\0,a\n", "line 2: not UTF-8"),
        ("a.parquet", b"text,label\n", "not a readable Parquet file"),
        ("a.parquet", as_parquet(pd.DataFrame(ROWS))[:-40] + b"PAR1", "not a readable Parquet file"),
    ],
)
def test_not_the_format_it_claims(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    refused(written(tmp_path / name, content), message)


def test_a_header_is_never_taken_for_an_index_and_is_stripped(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "a.csv", b",text , label\n0,one,a\n1,,b\n2\n"))
    assert table.frame.columns.tolist() == ["", "text", "label"]
    assert table.frame["text"].tolist() == ["one", "", ""]
    assert table.header_guessed


def test_a_tsv_without_quoting_keeps_rows_that_begin_with_a_quote(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tsv", b'text\tlabel\n"Yes, he said\ta\nno\tb\n"quoted ""word"""\tc\nthe "end"\td\n'
    )
    assert read_table(path).frame["text"].tolist() == ['"Yes, he said', "no", 'quoted "word"', 'the "end"']


@pytest.mark.parametrize("read", [read_table, open_table])
@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        # Two texts that begin with a quote would join all rows between them.
        ("a.csv", 'text,label\none,a\n"Yes, he said,a\ntwo,b\n"No, she said,b\n', 3),
        # One short line, and a lone quote is no longer known to be part of the text.
        ("a.tsv", 'text\tlabel\none\n"Yes\ta\ntwo\tb\n"No\tb\n', 3),
        ("a.csv", 'text,label\n"two\nlines",a\n"said \\"no\\", twice",b\n', 4),
        ("a.csv", 'text,label\n\n\n"closed" too early,a\n', 4),
    ],
)
def test_quotes_that_are_not_quoting_are_refused(
    tmp_path: Path, read: Callable[[Path], object], name: str, content: str, line: int
) -> None:
    place = rf"text after a closing quote in the row that begins in line {line}\)"
    with pytest.raises(DataError, match=place):
        read(written(tmp_path / name, content.encode()))


def test_quotes_within_a_text_need_no_quoting(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b'text,label\n5" screen,a\nthe "end",b\n"a ""b"", c",d\n')
    assert read_table(path).frame["text"].tolist() == ['5" screen', 'the "end"', 'a "b", c']


def test_blank_lines_are_rows_of_one_column_only(tmp_path: Path) -> None:
    one = written(tmp_path / "one.csv", b"\n\ntext\nfirst\n\nthird\n  \nfifth\n")
    assert read_table(one).frame["text"].tolist() == ["first", "", "third", "  ", "fifth"]
    two = written(tmp_path / "two.csv", b"\ntext,label\n\nfirst,a\n \n,b\n\n")
    assert read_table(two).frame.values.tolist() == [["first", "a"], ["", "b"]]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_may_end_in_any_way(tmp_path: Path, end: str) -> None:
    path = written(tmp_path / "a.csv", end.join(["text,label", '"a\rb\r\nc",x', "d,y"]).encode())
    assert read_table(path).frame.values.tolist() == [["a\rb\r\nc", "x"], ["d", "y"]]


@pytest.mark.parametrize("given", [";", "semicolon"])
@pytest.mark.parametrize("read", [read_table, open_table])
def test_another_delimiter(tmp_path: Path, read: Callable[..., Any], given: str) -> None:
    """The error names the one that a file uses; fields that are quoted may hold it."""
    rows = 'text;label\n"one; or\ntwo, three";a\nfour, five;b\n'
    path = written(tmp_path / "a.csv", rows.encode())
    with pytest.raises(DataError, match=r"its lines are separated by ';': add --delimiter ';'$"):
        read(path)
    table = read(path, delimiter=given)
    (frame,) = [table.frame] if isinstance(table, Table) else [part.frame for part in table.chunks()]
    assert frame.values.tolist() == [["one; or\ntwo, three", "a"], ["four, five", "b"]]


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("a.csv", "text\tlabel\none, two\ta\n", "its lines are tab-separated: add --delimiter tab"),
        ("a.tsv", "text,label\none\ta,b\n", "its lines are comma-separated: add --delimiter ','"),
        ("a.csv", "text|label\none, two|a\n", "its lines are separated by '|': add --delimiter '|'"),
        # Two characters would do, or none.
        ("a.csv", "text;x|label\none, two;y|a\n", "write each quote in it twice"),
        ("a.csv", "text,label\none, two; three,a\n", "write each quote in it twice"),
    ],
)
def test_the_delimiter_is_named_only_if_it_fits_every_row(
    tmp_path: Path, name: str, content: str, advice: str
) -> None:
    refused(written(tmp_path / name, content.encode()), advice)


def test_columns_for_a_file_with_another_delimiter(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"one;a\ntwo;b\n")
    with pytest.raises(DataError, match=r"has 1 column \(first row: 'one;a'\).*add --delimiter ';'$"):
        read_table(path, columns=("text", "label"))
    assert read_table(path, ("text", "label"), delimiter=";").frame["label"].tolist() == ["a", "b"]


@pytest.mark.parametrize("given", ["", ";;", "\n", '"'])
def test_a_delimiter_is_one_character(tmp_path: Path, given: str) -> None:
    path = written(tmp_path / "a.csv", b"a;b\n1;2\n")
    with pytest.raises(
        SettingsError, match="give one character, or one of tab, comma, semicolon, pipe, space"
    ):
        read_table(path, delimiter=given)


def test_a_delimiter_is_for_csv_and_tsv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--delimiter is for CSV and TSV files"):
        open_table(written(tmp_path / "a.jsonl", as_json_lines()), delimiter=";")


def test_columns_name_a_file_without_a_header(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"a,one\nb,two\n")
    table = read_table(path, columns=("label", "text"))
    assert table.frame.to_dict("records") == [{"label": "a", "text": "one"}, {"label": "b", "text": "two"}]
    assert not table.header_guessed
    with pytest.raises(
        DataError, match=r"has 2 columns \(first row: 'a', 'one'\), --columns names 1 \('label'\)"
    ):
        read_table(path, columns=("label",))


def test_columns_that_repeat_the_header_do_not_make_it_a_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"label,text\nb,two\n")
    assert len(read_table(path, columns=("label", "text")).frame) == 1


def test_columns_are_for_files_that_name_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--columns is for CSV and TSV"):
        read_table(written(tmp_path / "a.jsonl", as_json_lines()), columns=("a", "b"))


def test_a_frame_gives_its_rows_without_its_index() -> None:
    frame = pd.DataFrame(
        {"text": ["a", None, "c"], 0: [1.0, None, 3.0]}, index=pd.Index([7, 5, 7], name="id")
    )
    before = frame.copy()
    table = table_of(frame)
    assert (table.name, table.unparsable, table.header_guessed) == ("DataFrame", 0, False)
    assert table.frame.columns.tolist() == ["text", "0"]
    assert table.frame.index.tolist() == [0, 1, 2]
    assert (strings(table, "text"), strings(table, "0")) == (["a", "", "c"], ["1", "", "3"])
    pd.testing.assert_frame_equal(frame, before)


def test_half_a_surrogate_pair_in_a_frame_becomes_a_replacement_character() -> None:
    frame = pd.DataFrame({"text": ["x\ud800", "y"], "n": [1, 2]}, dtype=object)
    assert table_of(frame).frame.values.tolist() == [["x\ufffd", 1], ["y", 2]]


def test_an_index_without_a_name_is_no_column_of_a_parquet_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", as_parquet(pd.DataFrame(ROWS, index=pd.Index([7, 5, 3]))))
    assert read_table(path).frame.columns.tolist() == ["text", "label"]


def test_a_frame_that_is_no_table() -> None:
    with pytest.raises(DataError, match=r"^rows holds no rows"):
        table_of(pd.DataFrame({"text": []}), "rows")
    with pytest.raises(DataError, match=r"^DataFrame: the columns have 2 levels"):
        table_of(pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError) as error:
        read_table(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
