"""The bytes of a plain, .gz or .xz file as a stream, so that no file has to fit in memory."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lorasweep.training.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def open_packed(file: Path) -> IO[bytes]:
    """The unpacked bytes; iterating gives lines that end at "\\n" only."""
    suffix = file.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(gzip.open(file))
    if suffix == ".xz":
        return io.BufferedReader(lzma.open(file))
    return file.open("rb")


@contextmanager
def packed_errors(path: str | Path) -> Iterator[None]:
    """Inside it an unreadable or incomplete file ends in a `DataError` of one line."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{path} is not a complete {Path(path).suffix.lower()} file ({error}); download it again"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from None


def decoded_line(line: bytes, name: str, number: int) -> str:
    """A line as text, without a byte order mark; raises `DataError` where it is no UTF-8."""
    try:
        return (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}, line {number}: not UTF-8 text (byte 0x{line[error.start]:02x}); save the file as UTF-8"
        ) from None


def undecodable_line(file: Path, name: str) -> DataError:
    """The error that names a file's first line that is no UTF-8."""
    with open_packed(file) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                decoded_line(line, name, number)
            except DataError as error:
                return error
    return DataError(f"{name}: not UTF-8 text; save the file as UTF-8")
