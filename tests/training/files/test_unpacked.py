import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.unpacked import find_source, standard_input, table_format

CSV = b"text,label\none,a\n"


def zipped(name: str) -> bytes:
    """The same bytes whenever it is called: tests bear them in their names."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), CSV)
    return content.getvalue()


def test_plain_and_packed_files_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "a.CSV.GZ").write_bytes(gzip.compress(CSV))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(CSV))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("folder/", "")
        archive.writestr("folder/a.csv.gz", gzip.compress(CSV))
        archive.writestr("__MACOSX/folder/a.csv", b"x")
        archive.writestr("folder/.a.csv", b"x")
        archive.writestr("LICENSE.txt", b"x")
    for name in ("a.csv", "a.CSV.GZ", "a.csv.xz", "archive.zip"):
        source = find_source(tmp_path / name, (".csv",))
        for _ in range(2):
            with source.unpacked() as content:
                assert content.read() == CSV, name


def test_a_packed_file_may_have_any_name(tmp_path: Path) -> None:
    """Browsers and scripts drop the .gz."""
    for pack in (gzip.compress, lzma.compress):
        (tmp_path / "a.csv").write_bytes(pack(CSV))
        assert text_of(tmp_path / "a.csv") == CSV.decode()
        (tmp_path / "a.csv").write_bytes(pack(CSV)[:-5])
        refused(
            tmp_path / "a.csv", "a.csv is not a complete .gz file" if pack is gzip.compress else ".xz file"
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped("a.csv"), "is a .zip archive by its content; rename it to {}.zip"),
        (zipped("[Content_Types].xml"), "is a spreadsheet by its content; rename it to"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "is a spreadsheet by its content"),
        (b"PAR1" + bytes(99), "is a Parquet file by its content; rename it to"),
        (bz2.compress(CSV), "is packed by bzip2, which is not read; unpack it first, with bunzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "is packed by Zstandard"),
    ],
)
def test_a_file_that_is_no_text_is_named_by_its_content(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    refused(tmp_path / "a.csv", message.format(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_bytes(b"BZh is how it begins\n")
    assert text_of(tmp_path / "a.csv") == "BZh is how it begins\n"


def test_a_zip_is_named_with_its_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("rows.json", b"{}")
    source = find_source(tmp_path / "a.zip", (".json",))
    assert (source.name, source.suffix) == (f"{tmp_path / 'a.zip'}: rows.json", ".json")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a.csv", "b.csv"], "2 tables ('a.csv', 'b.csv')"),
        (["a.pdf"], "no table ('a.pdf')"),
        ([], "no table (none)"),
    ],
)
def test_a_zip_without_exactly_one_table(tmp_path: Path, members: list[str], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for member in members:
            archive.writestr(member, CSV)
    refused(tmp_path / "a.zip", message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty (0 bytes)"),
        ("a.xlsx", CSV, "'.xlsx' is not one of .csv, .json (each also with .gz, .xz, .zip)"),
        ("a.gz", CSV, "'none' is not one of .csv"),
        ("a", CSV, "'none' is not one of .csv"),
        ("a.csv.gz", CSV, "not a complete .gz file"),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)[:-9], "not a complete .gz file"),
        ("a.csv.gz", gzip.compress(CSV * 9, mtime=0)[:15] + b"\xff" * 9, "not a complete .gz file"),
        ("a.csv.xz", CSV, "not a complete .xz file"),
        ("a.csv.xz", lzma.compress(CSV)[:-5], "not a complete .xz file"),
        ("a.zip", CSV, "cannot be unpacked as a .zip file"),
    ],
)
def test_broken_files_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.csv", "no such file")
    refused(tmp_path, "is a folder")
    refused(tmp_path / ("x" * 300 + ".csv"), "cannot be read (File name too long)")
    refused("a\0.csv", "no such file")


def test_text_that_is_of_no_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("\ufeffé".encode()))
    assert text_of(path) == "é"
    path.write_bytes(gzip.compress(b"ok\n" * 50_000 + b"\xe9\0"))
    with pytest.raises(DataError, match=r"a\.csv\.gz, line 50001: not UTF-8 text \(byte 0xe9\)"):
        text_of(path)


def test_lines_of_text_end_at_line_feeds_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("a\u2028\x85\x0b\x0c\rb\nc".encode())
    with find_source(path, (".csv",)).text() as lines:
        assert list(lines) == ["a\u2028\x85\x0b\x0c\rb\n", "c"]


@pytest.mark.parametrize("given", [b"a\xc2\x85b\nc", None])
def test_standard_input_can_be_read_again(monkeypatch: pytest.MonkeyPatch, given: bytes | None) -> None:
    stdin = None if given is None else SimpleNamespace(buffer=io.BytesIO(given))
    monkeypatch.setattr("sys.stdin", stdin)
    source = standard_input()
    for _ in range(2):
        with source.unpacked() as content:
            assert content.read() == (given or b"")


def test_shown_cuts_long_values_and_long_lists() -> None:
    assert shown([]) == "none"
    assert shown(["a\nb", 1], limit=1) == r"'a\nb' and 1 more"
    assert len(shown(["x" * 500])) == 60


def test_table_format() -> None:
    assert [table_format(name) for name in ("a.b.CSV", "a.json.gz", "a.zip", "a")] == [
        ".csv",
        ".json",
        ".zip",
        "",
    ]


def text_of(path: Path | str) -> str:
    with find_source(path, (".csv", ".json")).text() as text:
        return text.read()


def refused(path: Path | str, message: str) -> None:
    with pytest.raises(DataError) as error:
        text_of(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
