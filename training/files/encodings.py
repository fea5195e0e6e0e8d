"""Text that is not UTF-8: where, what it probably is, and the command that converts it."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from lorasweep.training.errors import DataError

# Python's name → iconv's. Of several that fit equally well the first is named.
ENCODINGS = {
    "cp1252": "WINDOWS-1252",
    "cp1250": "WINDOWS-1250",
    "cp1251": "WINDOWS-1251",
    "cp1253": "WINDOWS-1253",
    "cp1254": "WINDOWS-1254",
    "cp1255": "WINDOWS-1255",
    "cp1256": "WINDOWS-1256",
    "koi8_r": "KOI8-R",
    "cp932": "CP932",
    "euc_jp": "EUC-JP",
    "gb18030": "GB18030",
    "big5": "BIG5",
    "cp949": "CP949",
    "cp874": "CP874",
    "iso8859_2": "ISO-8859-2",
    "mac_roman": "MACINTOSH",
}
_MARKS = {
    # That of UTF-32 begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SAMPLE = 65_536
"""Bytes of lines beyond ASCII that the encoding is guessed from."""

UTF8 = "UTF-8"
_UNPACK = {".gz": "gzip -dc <", ".xz": "xz -dc <"}


def wide_encoding(head: bytes) -> str:
    """UTF-16 or UTF-32 if these first bytes of a file say so, else empty."""
    marked = [name for mark, name in _MARKS.items() if head.startswith(mark)]
    if marked:
        return marked[0]
    # Without a mark: a NUL beside each of the first letters, which are ASCII in most files.
    head = head[:8]
    if len(head) == 8:
        for name, nuls, letters in (("UTF-16LE", head[1::2], head[::2]), ("UTF-16BE", head[::2], head[1::2])):
            if not any(nuls) and all(letters):
                return name
    return ""


def undecodable(name: str, lines: Iterable[bytes], command: Callable[[str], str]) -> DataError:
    """Names the first line that is not UTF-8, the likely encoding, and the command that converts the file.

    Args:
        lines: the file's, from the first on; not all are read.
        command: converts the file from this encoding.
    """
    place, sample, utf8 = "", b"", False
    for number, line in enumerate(lines, start=1):
        if number == 1 and (wide := wide_encoding(line)):
            return DataError(f"{name}: {wide} text, not UTF-8; convert it: {command(wide)}")
        if line.isascii():
            continue
        try:
            line.decode()
            utf8 = utf8 or not place
        except UnicodeDecodeError as error:
            place = place or f"line {number}: not UTF-8 text (byte 0x{line[error.start]:02x})"
        if place:
            sample += line
        if len(sample) >= _SAMPLE:
            break
    if utf8:
        return DataError(
            f"{name}, {place}, but the lines above it are; correct it, or leave such bytes out: "
            f"{command(UTF8)}"
        )
    likely = _likely(sample)
    if not likely:
        return DataError(f"{name}, {place}; save the file as UTF-8")
    return DataError(f"{name}, {place}, probably {likely}; convert it: {command(likely)}")


def convert_command(encoding: str, path: str = "", packing: str = "", member: str = "") -> str:
    """The command that writes a file as UTF-8; from UTF-8 it leaves out what is none.

    Args:
        path: of the file; empty for standard input.
        packing: ".gz", ".xz", or empty.
        member: the table's name in the zip at `path`.
    """
    convert = f"iconv {'-c ' if encoding == UTF8 else ''}-f {encoding} -t {UTF8}"
    if not path:
        return convert
    file = PurePosixPath(member or path)
    while file.suffix in _UNPACK:
        file = file.with_suffix("")
    file = file.with_stem(f"{file.stem}-utf8")
    out, given = shlex.quote(file.name if member else str(file)), shlex.quote(path)
    if member:
        return f"unzip -p {given} {shlex.quote(member)} | {convert} > {out}"
    if packing:
        return f"{_UNPACK[packing]} {given} | {convert} > {out}"
    return f"{convert} {given} > {out}"


def _likely(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample, cp_isolation=list(ENCODINGS), threshold=0.4))
    if not matches:
        return ""
    # Several fit equally well, or decode these bytes to the same text.
    fit = (matches[0].chaos, matches[0].coherence)
    best = [name for m in matches if (m.chaos, m.coherence) == fit for name in m.could_be_from_charset]
    return next((iconv for python, iconv in ENCODINGS.items() if python in best), "")
