"""Text that is not UTF-8: the error names what it is, and its command makes it readable."""

import gzip
import lzma
import subprocess
import zipfile
from pathlib import Path

import pytest

from lorasweep.training.errors import DataError
from lorasweep.training.files.unpacked import find_source

TEXTS = {
    "cp1252": "Le café était fermé hier soir, “vraiment”",
    "latin-1": "café número déjà vu",
    "cp1251": "Привет, как дела? Рынок растёт",
    "cp932": "今日は天気がいいですね",
    "gb18030": "今天天气很好, 新闻快报市场上涨",
    "utf-16": "Le café",
    "utf-16-le": "Le café",
    "utf-32": "Le café",
}


def read(path: Path) -> str:
    with find_source(path, (".csv",)).text() as lines:
        return lines.read()


def command_of(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    return str(error.value).rpartition(": ")[2]


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_command_converts_the_file(tmp_path: Path, encoding: str) -> None:
    text = "text,label\n" + "".join(f"{TEXTS[encoding]} {number},a\n" for number in range(5))
    path = tmp_path / "two {words}.csv"
    path.write_bytes(text.encode(encoding))
    command = command_of(path)
    assert command.startswith("iconv -f ")
    subprocess.run(command, shell=True, check=True)
    assert read(tmp_path / "two {words}-utf8.csv") == text


def test_the_command_unpacks_the_file_first(tmp_path: Path) -> None:
    content = b"text\n" + "café fermé\n".encode("latin-1") * 9
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "b.csv").write_bytes(lzma.compress(content))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("d/c.csv", content)
    for name in ("a.csv.gz", "b.csv"):
        subprocess.run(command_of(tmp_path / name), shell=True, check=True)
        assert read(tmp_path / f"{name[0]}-utf8.csv").startswith("text\ncafé fermé\n")
    zipped = command_of(tmp_path / "c.zip")
    assert zipped == f"unzip -p {tmp_path / 'c.zip'} d/c.csv | iconv -f WINDOWS-1252 -t UTF-8 > c-utf8.csv"


def test_a_broken_byte_in_a_utf8_file_is_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text\ncafé\nfermé\n".encode() + b"broken \xe9\n")
    with pytest.raises(
        DataError, match=r"line 4: not UTF-8 text \(byte 0xe9\), but the lines above it are; correct"
    ):
        read(path)
    subprocess.run(command_of(path), shell=True, check=False)  # iconv exits with 1 where it leaves out bytes
    assert read(tmp_path / "a-utf8.csv").endswith("fermé\nbroken \n")


def test_bytes_that_are_no_known_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\n" + bytes(range(128, 256)) * 3)
    with pytest.raises(DataError, match=r"line 2: not UTF-8 text \(byte 0x80\)"):
        read(path)
