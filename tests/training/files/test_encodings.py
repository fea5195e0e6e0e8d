"""Text of any encoding: found out by its bytes, or named by the user."""

import gzip
import lzma
import subprocess
import zipfile
from pathlib import Path

import pytest

from lorasweep.training.errors import DataError, SettingsError
from lorasweep.training.files.tables import open_table
from lorasweep.training.files.unpacked import find_source
from lorasweep.training.files.whole_tables import read_table

TEXTS = {
    "cp1252": "Le café était fermé hier soir, “vraiment”",
    "latin-1": "café número déjà vu",
    "cp1251": "Привет, как дела? Рынок растёт",
    "cp932": "今日は天気がいいですね",
    "gb18030": "今天天气很好, 新闻快报市场上涨",
    "utf-16": "Le café",
    "utf-16-le": "Le café",
    "utf-16-be": "Le café",
    "utf-32": "Le café",
}


def read(path: Path) -> str:
    with find_source(path, (".csv",)).text() as lines:
        return lines.read()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(path: Path, encoding: str | None = None) -> str:
    with pytest.raises(DataError) as error:
        read_table(path, encoding=encoding)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_bytes_tell_the_encoding(tmp_path: Path, encoding: str) -> None:
    text = "text\tlabel\n" + "".join(f"{TEXTS[encoding]} {number}\ta\n" for number in range(5))
    path = written(tmp_path / "a.tsv", text.encode(encoding))
    for table in (read_table(path), next(open_table(path).chunks())):
        assert table.frame["text"].tolist() == [f"{TEXTS[encoding]} {number}" for number in range(5)]
    (note,) = read_table(path).notes
    told = "cp1252" if encoding == "latin-1" else encoding
    assert note == f"{path} is read as {told}, by its bytes; if letters are wrong, name another --encoding"
    assert open_table(path).notes == (note,)


@pytest.mark.parametrize("text", ["plain", "café", "naïve 😀", "今天", "\ufeffcafé"])
def test_utf8_is_never_taken_for_something_else(tmp_path: Path, text: str) -> None:
    table = read_table(written(tmp_path / "a.csv", f"{text},label\n{text} 1,a\n".encode()))
    assert table.frame.columns[0] == text.removeprefix("\ufeff")
    assert table.notes == ()


def test_packed_files_have_an_encoding_too(tmp_path: Path) -> None:
    content = b"text\n" + "café fermé\n".encode("latin-1") * 9
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "b.csv").write_bytes(lzma.compress(content))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("d/c.csv", content)
    for name in ("a.csv.gz", "b.csv", "c.zip"):
        table = read_table(tmp_path / name)
        assert table.frame["text"].tolist() == ["café fermé"] * 9
        assert "read as cp1252" in table.notes[0]


def test_a_named_encoding_goes_before_the_bytes(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\ncafé,a\n".encode("mac_roman"))
    for name in ("mac_roman", "macintosh", "Mac-Roman"):
        table = read_table(path, encoding=name)
        assert table.frame["text"].tolist() == ["café"]
        assert table.notes == ()
    utf8 = written(tmp_path / "b.csv", "text,label\ncafé,a\n".encode())
    assert read_table(utf8, encoding="cp1252").frame["text"].tolist() == ["cafÃ©"]
    assert read_table(utf8, encoding="utf-8").frame["text"].tolist() == ["café"]


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe"])
def test_a_mark_is_no_letter_of_the_first_column(tmp_path: Path, mark: bytes) -> None:
    path = written(tmp_path / "a.csv", mark + "text,label\ncafé,a\n".encode("utf-16-le"))
    assert read_table(path, encoding="utf-16-le").frame.columns.tolist() == ["text", "label"]


@pytest.mark.parametrize("name", ["cp12525", "base64", "rot13", "", "utf\0"])
def test_an_unknown_encoding_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "a.csv", b"text,label\nx,a\n")
    with pytest.raises(SettingsError, match=r"--encoding .*: no such encoding; use a name such as utf-8"):
        read_table(path, encoding=name)


def test_a_parquet_file_has_no_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    read_table(written(tmp_path / "a.csv", b"text\nx\n")).frame.to_parquet(path)
    assert "--encoding is for text files; leave it out" in refusal(path, "cp1252")


@pytest.mark.parametrize(
    ("encoding", "good", "wrong", "byte"),
    [
        ("cp1252", "café\n".encode("cp1252"), b"\x81\n", "81"),
        ("utf-8", "café\n".encode(), b"x\xe9\n", "e9"),
        ("gb18030", "今天\n".encode("gb18030"), b"\xff\n", "ff"),
        ("utf-16-le", "café\n".encode("utf-16-le"), b"\x00\xdc\n\x00", "00"),
    ],
)
@pytest.mark.parametrize("above", [3, 40_000])
def test_bytes_that_are_not_of_the_encoding_name_their_line(
    tmp_path: Path, encoding: str, good: bytes, wrong: bytes, byte: str, above: int
) -> None:
    path = written(tmp_path / "a.csv", "text\n".encode(encoding) + good * above + wrong)
    message = refusal(path, encoding)
    assert f", line {above + 2}: not {encoding} text (byte 0x{byte}); correct it, or name another" in message


def test_a_guess_that_fails_further_below_names_the_line(tmp_path: Path) -> None:
    # More lines than the guess looks at.
    lines = ["Le café était fermé hier soir".encode("cp1252")] * 4000
    path = written(tmp_path / "a.csv", b"text\n" + b"\n".join([*lines, b"\x81"]))
    assert "line 4002: not cp1252 text (byte 0x81)" in refusal(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_wide_encoding_that_the_file_does_not_have(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "a.csv", b"text,label\nabcde,a\nx,b\n")
    assert f"not {encoding} text" in refusal(path, encoding)


def test_a_broken_byte_in_a_utf8_file_is_no_other_encoding(tmp_path: Path) -> None:
    path = written(tmp_path / "two {words}.csv", "text\ncafé\nfermé\n".encode() + b"broken \xe9\n")
    message = refusal(path)
    assert "line 4: not UTF-8 text (byte 0xe9), but other lines are; correct it, name the file's" in message
    # iconv exits with 1 where it leaves out bytes.
    subprocess.run(message.rpartition(": ")[2], shell=True, check=False)
    assert read(tmp_path / "two {words}-utf8.csv").endswith("fermé\nbroken \n")


def test_two_encodings_in_one_file_are_not_read_as_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text\ncafé\n".encode() + "fermé\n".encode("cp1252") * 9)
    assert "line 3: not UTF-8 text (byte 0xe9), but other lines are" in refusal(path)
    assert read_table(path, encoding="cp1252").frame["text"].tolist() == ["cafÃ©", *["fermé"] * 9]


def test_a_broken_first_line_makes_no_other_encoding_of_a_utf8_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"text\nbroken \xe9\n" + "café\nfermé\ndéjà\n".encode())
    assert "line 2: not UTF-8 text (byte 0xe9), but other lines are" in refusal(path)


def test_the_command_unpacks_the_file_first(tmp_path: Path) -> None:
    content = "text\ncafé\n".encode() * 9 + b"\xe9\n"
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "b.csv").write_bytes(lzma.compress(content))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("d/c.csv", content)
    for name in ("a.csv.gz", "b.csv"):
        subprocess.run(refusal(tmp_path / name).rpartition(": ")[2], shell=True, check=False)
        assert read(tmp_path / f"{name[0]}-utf8.csv").startswith("text\ncafé\n")
    command = refusal(tmp_path / "c.zip").rpartition(": ")[2]
    assert command == f"unzip -p {tmp_path / 'c.zip'} d/c.csv | iconv -c -f UTF-8 -t UTF-8 > c-utf8.csv"


def test_bytes_that_are_no_known_text(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"text\n" + bytes(range(128, 256)) * 3)
    assert "line 2: not UTF-8 text (byte 0x80), nor of an encoding that can be guessed" in refusal(path)
