"""What a file is by its first bytes, where its name says something else."""

from __future__ import annotations

from pathlib import PurePosixPath

from lorasweep.training.errors import DataError

HEAD = 64
"""First bytes of a file that are looked at."""

PARQUET, ARROW, EXCEL = ".parquet", ".arrow", ".xlsx"
# The first entries of an .xlsx and an .ods, which are zips.
_EXCEL = (b"[Content_Types].xml", b"_rels/", b"xl/", b"docProps/")
_OPEN_DOCUMENT = b"mimetypeapplication/vnd.oasis"
_PACKED = {b"PK\x03\x04": ("a .zip archive", ".zip"), b"PAR1": ("a Parquet file", PARQUET)}
_UNREAD = {b"\x28\xb5\x2f\xfd": ("Zstandard", "unzstd"), b"BZh": ("bzip2", "bunzip2")}
_OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def refuse_other_content(path: str, suffix: str, head: bytes) -> None:
    """Refuse a file whose first bytes say that it is no text.

    Args:
        suffix: of the format that its name tells.

    Raises:
        DataError: what it is, and what to do.
    """
    if suffix in (PARQUET, ARROW):
        return
    zipped = head.startswith(b"PK\x03\x04")
    if head.startswith(_OLD_EXCEL):
        raise DataError(
            f"{path} is a spreadsheet by its content, old or with a password; save it as {EXCEL} without one, or as CSV"
        )
    if zipped and _OPEN_DOCUMENT in head:
        raise DataError(f"{path} is a spreadsheet by its content; save its sheet as CSV")
    if suffix == EXCEL:
        if not zipped:
            raise DataError(f"{path} is no {EXCEL} file by its content; save it again, or rename it")
        return
    if zipped and any(first in head for first in _EXCEL):
        raise DataError(
            f"{path} is a spreadsheet by its content; rename it to {PurePosixPath(path).with_suffix(EXCEL)}"
        )
    for first, (kind, right) in _PACKED.items():
        if head.startswith(first):
            name = f"{path}{right}" if right == ".zip" else PurePosixPath(path).with_suffix(right)
            raise DataError(f"{path} is {kind} by its content; rename it to {name}")
    for first, (kind, command) in _UNREAD.items():
        if head.startswith(first) and (first != b"BZh" or head[4:10] == b"1AY&SY"):
            raise DataError(f"{path} is packed by {kind}, which is not read; unpack it first, with {command}")
