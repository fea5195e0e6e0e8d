"""The file that a user names, as a stream of its unpacked bytes: plain, .gz, .xz, or the one table in a .zip.

Whatever is wrong with the file raises a `DataError` of one line.
"""

from __future__ import annotations

import gzip
import io
import lzma
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.content import HEAD, refuse_other_content
from lorasweep.training.files.download import address_name, as_address, download
from lorasweep.training.files.encodings import (
    UTF8,
    clean_command,
    guess_encoding,
    mark_length,
    undecodable,
    wide_encoding,
)

Value = TypeVar("Value")

PACKED = (".gz", ".xz", ".zip")

MOST_UNPACKED = 2 * 2**30
"""Bytes that a zip of one hundredth of their size may unpack to: text shrinks to a tenth, a bomb to a thousandth."""

_UNPACK: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".xz": lzma.open}
_FIRST_BYTES = {b"\x1f\x8b\x08": ".gz", b"\xfd7zXZ\x00": ".xz"}
_BROKEN = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Source:
    """A stream of bytes that can be opened as often as needed.

    Attributes:
        name: for messages: the path as given, for a zip followed by the table's name in it.
        suffix: tells the format, such as ".csv" for news.csv.gz.
        open: the bytes from the beginning, still packed by gzip or xz.
        path: the path as given; empty for standard input.
        member: the table's name in the zip at `path`.
        encoding: of its text, by Python's name; found out at each opening where it is empty.
        note: what the user should know of where it comes from; else empty.
        part: which of several tables in the file is meant; empty for all of it.
    """

    name: str
    suffix: str
    open: Callable[[], IO[bytes]]
    path: str = ""
    member: str = ""
    encoding: str = ""
    note: str = ""
    part: str = ""

    @contextmanager
    def unpacked(self) -> Iterator[IO[bytes]]:
        """The unpacked bytes; inside the context, a file that cannot be read raises `DataError`.

        The file's first bytes tell whether it is packed by gzip or xz, whatever its name.
        """
        try:
            with ExitStack() as stack:
                content = stack.enter_context(self.open())
                packing = self._packing(content)
                if packing:
                    content = stack.enter_context(_UNPACK[packing](content))
                refuse_other_content(self.path or self.name, self.suffix, _head(content))
                yield content
        except _BROKEN as error:
            packing = self._suffix if self._suffix in _UNPACK else packing or ".zip"
            raise DataError(
                f"{self.name} is not a complete {packing} file ({error}); download it again"
            ) from None
        except OSError as error:
            raise _unreadable(self.name, error) from None

    @contextmanager
    def text(self, newline: str = "\n") -> Iterator[IO[str]]:
        r"""The content, decoded, without its byte order mark.

        Lines end at "\n" alone; `newline` is that of Python's `open`. Raises `DataError`, with the line, for bytes
        that are none of the encoding.
        """
        encoding = self.encoding or self.guessed_encoding()
        try:
            with self.unpacked() as content:
                content.seek(mark_length(encoding, _head(content)))
                codec = "utf-8-sig" if encoding == UTF8 else encoding
                with io.TextIOWrapper(content, codec, newline=newline) as text:
                    yield text
        except UnicodeError:
            with self.unpacked() as content:
                content.seek(mark_length(encoding, _head(content)))
                # Standard input takes no options.
                advice = "name another --encoding" if self.path else "give it as UTF-8"
                raise undecodable(self.name, content, encoding, advice) from None

    def guessed_encoding(self) -> str:
        """The encoding that the bytes tell, by Python's name; raises `DataError` where they tell none."""
        with self.unpacked() as content:
            if wide := wide_encoding(_head(content)):
                return wide
            with self.open() as packed:
                packing = self._packing(packed)
            return guess_encoding(self.name, content, clean_command(self.path, packing, self.member))

    def _packing(self, content: IO[bytes]) -> str:
        head = _head(content)
        told = [packing for first, packing in _FIRST_BYTES.items() if head.startswith(first)]
        return told[0] if told else self._suffix if self._suffix in _UNPACK else ""

    @property
    def _suffix(self) -> str:
        return PurePosixPath(self.name.lower()).suffix


def batches(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """The values in lists of at most `size`."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


def table_format(path: str | Path) -> str:
    """The suffix that tells the format: ".csv" for news.csv.gz, "" where there is none."""
    name = PurePosixPath(str(path).lower())
    if name.suffix in _UNPACK:
        name = name.with_suffix("")
    return name.suffix


def find_source(path: str | Path, formats: tuple[str, ...]) -> Source:
    """The file at `path`, or the one file in the zip at `path`, whose suffix is one of `formats`.

    Raises `DataError` for a path that is no readable file, another suffix, an empty file, and a zip that
    does not hold exactly one file of those formats. An address of the web is downloaded, once.
    """
    name, note = str(path), ""
    if address := as_address(path):
        path, note = download(address, (*formats, *PACKED))
        name = address_name(address)
    source = _local_source(path, name, formats)
    return replace(source, note=note)


def _local_source(path: str | Path, name: str, formats: tuple[str, ...]) -> Source:
    try:
        file, suffix = Path(path).expanduser(), table_format(path)
        if file.is_dir():
            raise DataError(f"{path or repr(path)} is a folder; name one file in it ({', '.join(formats)})")
        if not file.exists():
            raise DataError(f"{path}: no such file; check the path (relative paths start at {Path.cwd()})")
        if suffix not in (*formats, ".zip"):
            raise DataError(
                f"{path}: the format is told by the suffix, and {suffix or 'none'!r} is not one of "
                f"{', '.join(formats)} (each also with {', '.join(PACKED)}); rename or convert the file"
            )
        if not file.stat().st_size:
            raise DataError(f"{path} is empty (0 bytes) and holds no rows; was it downloaded completely?")
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(str(path), error) from None
    if suffix == ".zip":
        return _member(file, name, formats)
    return Source(name, suffix, lambda: file.open("rb"), str(file))


def check_unpacked_size(path: str, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse members of a zip that would fill the memory: `DataError`, with their size."""
    size, packed = sum(entry.file_size for entry in members), sum(entry.compress_size for entry in members)
    if size > MOST_UNPACKED and size > 100 * packed:
        raise DataError(
            f"{path} unpacks from {packed / 2**20:,.0f} MiB to {size / 2**30:,.1f} GiB, as no text does; unpack it "
            "yourself and name the file, if that is right"
        )


def standard_input() -> Source:
    """The lines of standard input, read like those of a text file in UTF-8."""
    content = sys.stdin.buffer.read() if sys.stdin is not None else b""
    return Source("standard input", ".txt", lambda: io.BytesIO(content), encoding=UTF8)


def _head(content: IO[bytes]) -> bytes:
    """The first bytes; the stream stands at its beginning again."""
    head = content.read(HEAD)
    content.seek(0)
    return head


def _unreadable(path: str, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(f"{shown([path])} cannot be read ({reason}); check the path and its permissions")


def _member(file: Path, path: str, formats: tuple[str, ...]) -> Source:
    try:
        with zipfile.ZipFile(file) as archive:
            members = [
                entry
                for entry in archive.namelist()
                if not entry.endswith("/")
                and not entry.startswith("__MACOSX/")
                and not PurePosixPath(entry).name.startswith(".")
            ]
            tables = [entry for entry in members if table_format(entry) in formats]
            if len(tables) != 1:
                content = (
                    f"{len(tables)} tables ({shown(tables)})" if tables else f"no table ({shown(members)})"
                )
                raise DataError(
                    f"{path} holds {content} where one is wanted; unpack it and name one file "
                    f"({', '.join(formats)})"
                )
            check_unpacked_size(path, [archive.getinfo(tables[0])])
            archive.open(tables[0]).close()  # an encrypted one is refused here
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} cannot be unpacked as a .zip file ({error}); download or unpack it again"
        ) from None

    def open_member() -> IO[bytes]:
        # The archive may be closed at once: its handle stays open as long as the member's.
        with zipfile.ZipFile(file) as archive:
            return archive.open(tables[0])

    return Source(f"{path}: {tables[0]}", table_format(tables[0]), open_member, str(file), tables[0])
