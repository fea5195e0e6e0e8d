"""The encoding of a text file: UTF-8 where that fits, else what its bytes tell, or what the user has named."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterable
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from lorasweep.training.errors import DataError, SettingsError

UTF8 = "utf-8"

# By Python's names. Of several that fit equally well the first is taken.
ENCODINGS = (
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "koi8_r",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
    "cp874",
    "iso8859_2",
    "mac_roman",
)
# That of UTF-32 begins with that of UTF-16. The codecs "utf-16" and "utf-32" read the mark, the others do not.
_MARKS = {
    codecs.BOM_UTF32_LE: ("utf-32", "utf-32-le"),
    codecs.BOM_UTF32_BE: ("utf-32", "utf-32-be"),
    codecs.BOM_UTF16_LE: ("utf-16", "utf-16-le"),
    codecs.BOM_UTF16_BE: ("utf-16", "utf-16-be"),
}
_SAMPLE = 65_536
"""Bytes of lines beyond ASCII that the encoding is guessed from."""

_UNPACK = {".gz": "gzip -dc <", ".xz": "xz -dc <"}


def as_encoding(given: str) -> str:
    """Python's name of the text encoding `given`.

    Raises:
        SettingsError: Python knows none of this name.
    """
    try:
        codec = codecs.lookup(given)
        # Codecs such as base64 make bytes of bytes.
        b"x".decode(given, "ignore")
    except (LookupError, UnicodeError, ValueError):
        raise SettingsError(
            f"--encoding {given!r}: no such encoding; use a name such as utf-8, cp1252, utf-16 or gb18030"
        ) from None
    return codec.name


def wide_encoding(head: bytes) -> str:
    """UTF-16 or UTF-32 if these first bytes of a file say so, else empty."""
    for mark, (marked, _) in _MARKS.items():
        if head.startswith(mark):
            return marked
    # Without a mark: a NUL beside each of the first letters, which are ASCII in most files.
    head = head[:8]
    if len(head) == 8:
        for name, nuls, letters in (
            ("utf-16-le", head[1::2], head[::2]),
            ("utf-16-be", head[::2], head[1::2]),
        ):
            if not any(nuls) and all(letters):
                return name
    return ""


def mark_length(encoding: str, head: bytes) -> int:
    """Bytes of the mark at a file's beginning that the codec would take for a letter."""
    fits = (mark for mark, (_, plain) in _MARKS.items() if plain == encoding and head.startswith(mark))
    return len(next(fits, b""))


def guess_encoding(name: str, lines: Iterable[bytes], convert: str) -> str:
    """The encoding of a file that has no mark: UTF-8 if all of it is, else what the bytes that are not tell.

    Args:
        name: of the file.
        lines: the file's, from the first on.
        convert: the command that leaves out of the file what is not UTF-8.

    Raises:
        DataError: names the first line that is not UTF-8, where others are, or where nothing fits it.
    """
    # In a file of another encoding a line that happens to be UTF-8 is rare.
    place, sample, utf8, above, other = "", b"", 0, False, 0
    for number, line in enumerate(lines, start=1):
        if line.isascii():
            continue
        try:
            line.decode()
            utf8 += 1
        except UnicodeDecodeError as error:
            if not place:
                place = f"{name}, line {number}: not UTF-8 text (byte 0x{line[error.start]:02x})"
                above = utf8 > 0
            other += 1
        if place:
            sample += line
        if len(sample) >= _SAMPLE:
            break
    if not place:
        return UTF8
    if above or utf8 > other:
        raise DataError(
            f"{place}, but other lines are; correct it, name the file's --encoding, or leave such bytes out: "
            f"{convert}"
        )
    # A NUL is no letter in any of them: a picture, or another file that is no text.
    likely = "" if b"\0" in sample else _likely(sample)
    if not likely:
        raise DataError(f"{place}, nor of an encoding that can be guessed; name it with --encoding")
    return likely


def undecodable(name: str, content: IO[bytes], encoding: str, advice: str) -> DataError:
    """Names the line of a file at which its encoding fails, and what to do."""
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    for chunk in (*iter(partial(content.read, 65_536), b""), b""):
        state = decoder.getstate()
        try:
            line += decoder.decode(chunk, final=not chunk).count("\n")
        except UnicodeDecodeError as error:
            decoder = codecs.getincrementaldecoder(encoding)("ignore")
            decoder.setstate(state)
            line += decoder.decode(chunk[: max(0, error.start - len(state[0]))]).count("\n")
            wrong = error.object[error.start : error.start + 1].hex() or "none"
            return DataError(
                f"{name}, line {line}: not {encoding} text (byte 0x{wrong}); correct it, or {advice}"
            )
        except UnicodeError:  # of UTF-16 and UTF-32, for a file without a mark
            break
    return DataError(f"{name}: not {encoding} text; {advice}")


def clean_command(path: str = "", packing: str = "", member: str = "") -> str:
    """The command that writes a file without the bytes that are not UTF-8.

    Args:
        path: of the file; empty for standard input.
        packing: ".gz", ".xz", or empty.
        member: the table's name in the zip at `path`.
    """
    convert = "iconv -c -f UTF-8 -t UTF-8"
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
    return next((name for name in ENCODINGS if name in best), "")
