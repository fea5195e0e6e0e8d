"""A file that a user names, as its unpacked bytes: plain, .gz, .xz, or the one table in a .zip.

Whatever is wrong with the file ends in a `DataError` of one line.
"""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from lorasweep.training.errors import DataError, shown

PACKED = (".gz", ".xz", ".zip")

_UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".xz": lzma.decompress}
_UNPACKING_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


def table_format(path: str | Path) -> str:
    """The suffix that tells the format: ".csv" for news.csv.gz, "" where there is none."""
    name = PurePosixPath(str(path).lower())
    if name.suffix in (".gz", ".xz"):
        name = name.with_suffix("")
    return name.suffix


def unpacked(path: str, formats: tuple[str, ...]) -> tuple[str, str, bytes]:
    """Name for messages, format suffix and unpacked content of the file at `path`.

    Raises `DataError` for a path that is no readable file, a suffix that is none of `formats`, a file that is
    empty or broken, and a zip that does not hold exactly one file of those formats.
    """
    try:
        file = Path(path).expanduser()
        if file.is_dir():
            raise DataError(f"{path or repr(path)} is a folder; name one file in it ({', '.join(formats)})")
        if not file.exists():
            raise DataError(f"{path}: no such file; check the path (relative paths start at {Path.cwd()})")
        name, suffix = path, table_format(path)
        if suffix not in (*formats, ".zip"):
            raise DataError(
                f"{name}: the format is told by the suffix, and {suffix or 'none'!r} is not one of "
                f"{', '.join(formats)} (each also with {', '.join(PACKED)}); rename or convert the file"
            )
        content = file.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{shown([path])} cannot be read ({reason}); check the path and its permissions"
        ) from None
    if not content:
        raise DataError(f"{path} is empty (0 bytes); was it downloaded completely?")
    if suffix == ".zip":
        name, suffix, content = _only_table(content, path, formats)
    packing = PurePosixPath(name.lower()).suffix
    if packing in _UNPACK:
        try:
            content = _UNPACK[packing](content)
        except _UNPACKING_ERRORS as error:
            raise DataError(f"{name} is not a complete {packing} file ({error}); download it again") from None
    if not content or content.isspace():
        raise DataError(f"{name} is empty; give a file with rows")
    return name, suffix, content


def _only_table(content: bytes, path: str, formats: tuple[str, ...]) -> tuple[str, str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [
                entry
                for entry in archive.namelist()
                if not entry.endswith("/")
                and not entry.startswith("__MACOSX/")
                and not PurePosixPath(entry).name.startswith(".")
            ]
            tables = [entry for entry in members if table_format(entry) in formats]
            if len(tables) != 1:
                found = (
                    f"{len(tables)} tables ({shown(tables)})" if tables else f"no table ({shown(members)})"
                )
                raise DataError(
                    f"{path} holds {found} where one is wanted; unpack it and name one file "
                    f"({', '.join(formats)})"
                )
            return f"{path}: {tables[0]}", table_format(tables[0]), archive.read(tables[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *_UNPACKING_ERRORS) as error:
        raise DataError(
            f"{path} cannot be unpacked as a .zip file ({error}); download or unpack it again"
        ) from None


def decoded(content: bytes, name: str) -> str:
    """UTF-8 text, with or without a byte order mark; raises `DataError` naming the line that is not."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}, line {line}: not UTF-8 text (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        ) from None
