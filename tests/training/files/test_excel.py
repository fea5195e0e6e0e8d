"""Excel's .xlsx."""

import gzip
import sys
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from lorasweep.training.data.columns import strings
from lorasweep.training.data.load import load_dataset
from lorasweep.training.errors import DataError, SettingsError
from lorasweep.training.files.tables import open_table
from lorasweep.training.files.whole_tables import read_table, read_tables
from lorasweep.training.settings import DataSettings

Rows = Sequence[Sequence[Any]]
ROWS: Rows = [("text", "label"), ("café 😀\nover two lines", 1), (None, 2), ("NA", None)]


def workbook(path: Path, **sheets: Rows) -> Path:
    book = Workbook()
    book.remove(book.active)  # type: ignore[arg-type]
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def refusal(path: Path, columns: tuple[str, ...] = (), **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read_table(path, columns, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_sheet_is_read_like_any_table(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", Sheet1=ROWS)
    table = read_table(path)
    assert table.frame.to_numpy().tolist() == [["café 😀\nover two lines", 1], [None, 2], ["NA", None]]
    assert strings(table, "label") == ["1", "2", ""]
    chunks = [chunk.frame["text"].tolist() for chunk in open_table(path).chunks(2)]
    assert chunks == [["café 😀\nover two lines", None], ["NA"]]
    (tmp_path / "a.xlsx.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_table(tmp_path / "a.xlsx.gz").frame.equals(table.frame)


def test_blank_rows_sheets_and_columns_do_not_count(tmp_path: Path) -> None:
    rows = [
        (),
        (None, ""),
        (" text ", "label", None, None),
        ("one", "a"),
        (None, None),
        ("two", "b", None, 5),
        (),
    ]
    table = read_table(workbook(tmp_path / "a.xlsx", Notes=[], Data=rows, More=[(None,)]))
    assert table.frame.to_dict("records") == [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]


def test_a_size_of_the_sheet_that_is_wrong_is_not_believed(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", Sheet1=ROWS)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            assert name != "xl/worksheets/sheet1.xml" or b'<dimension ref="A1:B4"' in content
            new.writestr(name, content.replace(b'<dimension ref="A1:B4"', b'<dimension ref="A1:A2"'))
    assert read_table(tmp_path / "b.xlsx").frame.equals(read_table(path).frame)


def test_a_sheet_without_a_header_line(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", Sheet1=[("one", "a"), ("two", "b")])
    assert read_table(path, ("text", "label")).frame["text"].tolist() == ["one", "two"]
    assert "has 2 columns (first row: 'one', 'a'), --columns names 1 ('text')" in refusal(path, ("text",))
    assert read_table(path).header_guessed


def test_sheets_may_be_splits(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", Test=ROWS[:2], Training=ROWS, notes=[])
    assert {split: len(table.frame) for split, table in read_tables(path).items()} == {"train": 3, "test": 1}
    rows = [(f"t{number}", "ab"[number % 2]) for number in range(48)]
    path = workbook(tmp_path / "b.xlsx", train=[ROWS[0], *rows[:40]], dev=[ROWS[0], *rows[40:]])
    dataset = load_dataset(DataSettings(path=str(path)), 0)
    assert (len(dataset.train) + len(dataset.test), len(dataset.validation)) == (40, 8)


def test_a_sheet_is_named(tmp_path: Path) -> None:
    """In any case, also one called like a split, and one of a packed workbook."""
    path = workbook(tmp_path / "a.xlsx", Notes=[("a", "b")] * 3, Texts=ROWS, test=ROWS[:2])
    for given in ("Texts", "texts "):
        assert read_table(path, sheet=given).frame["text"].tolist()[1:] == [None, "NA"]
        assert open_table(path, sheet=given).rows == 3
    assert len(read_table(path, sheet="test").frame) == 1
    assert read_table(path, ("one", "two"), sheet="Notes").frame["one"].tolist() == ["a"] * 3
    (tmp_path / "a.xlsx.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert len(read_table(tmp_path / "a.xlsx.gz", sheet="Texts").frame) == 3
    said = refusal(path, sheet="Text")
    assert (
        said
        == f"{path} has no sheet 'Text'; its sheets are 'Notes', 'Texts', 'test': name one of them by --sheet"
    )
    (tmp_path / "a.csv").write_text("text,label\nx,y\n")
    assert refusal(tmp_path / "a.csv", sheet="x") == (
        f"{tmp_path / 'a.csv'}: --sheet is for workbooks (.xlsx); leave it out"
    )


def test_a_sweep_reads_the_sheet_that_is_named(tmp_path: Path) -> None:
    rows = [(f"t{number}", "ab"[number % 2]) for number in range(40)]
    path = workbook(tmp_path / "b.xlsx", Old=[ROWS[0], ("z", "z")], New=[ROWS[0], *rows])
    assert load_dataset(DataSettings(path=str(path), sheet="New"), 0).rows_read == 40
    with pytest.raises(SettingsError, match="--sheet is for workbooks; a DataFrame has none"):
        load_dataset(
            DataSettings(path="DataFrame", sheet="New"), 0, {"train": read_table(path, sheet="New").frame}
        )


def test_dates_can_be_split_by(tmp_path: Path) -> None:
    rows = [(f"t{number}", "ab"[number % 2], datetime(2024, 1, 1 + number)) for number in range(30)]
    path = workbook(tmp_path / "a.xlsx", Sheet1=[("text", "label", "date"), *rows])
    dataset = load_dataset(DataSettings(path=str(path), split_by="date"), 0)
    assert dataset.dates["test"] == ("2024-01-28", "2024-01-30")


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = workbook(tmp_path / "a.xlsx", One=ROWS, Two=ROWS)
    assert (
        "has the sheets 'One', 'Two', and one table is wanted: name the one with the texts by --sheet"
        in refusal(several)
    )
    assert "every sheet is empty ('One', 'Two')" in refusal(
        workbook(tmp_path / "b.xlsx", One=[], Two=[(None,)])
    )
    path = workbook(tmp_path / "c.xlsx", One=ROWS[:1])
    assert "holds no rows" in refusal(path)
    assert "--delimiter is for CSV and TSV" in refusal(path, delimiter=";")
    assert "--encoding is for text files" in refusal(path, encoding="cp1252")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert ".xlsx files need openpyxl: pip install -e '.[excel]'" in refusal(path)


def test_broken_and_other_files(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", One=ROWS)
    content = path.read_bytes()
    path.rename(tmp_path / "a.csv")
    assert f"rename it to {path}" in refusal(tmp_path / "a.csv")
    path.write_bytes(content[:-100])
    assert "is not a readable .xlsx file (File is not a zip file); save it again" in refusal(path)
    path.write_bytes(b"text,label\nx,y\n")
    assert "is no .xlsx file by its content" in refusal(path)
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99))
    assert "old or with a password" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/other.xml", "<a/>")
    assert "is not a readable .xlsx file" in refusal(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorasweep.training.files.unpacked.MOST_UNPACKED", 10**6)
    for name, member in (("a.xlsx", "xl/sharedStrings.xml"), ("a.zip", "a.csv")):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, b"a" * 2 * 10**6)
        assert "unpacks from 0 MiB to 0.0 GiB, as no text does" in refusal(tmp_path / name)
    # As large, but what texts pack to.
    (tmp_path / "b.csv").write_text("text\n" + "".join(f"{n * 7919}\n" for n in range(200_000)))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "b.csv", "b.csv")
    assert len(read_table(tmp_path / "b.zip").frame) == 200_000
