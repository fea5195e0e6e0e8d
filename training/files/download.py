"""A file at an address of the web, downloaded once into a cache folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from email.message import Message
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lorasweep.training.errors import DataError, first_line

CACHE_VARIABLE = "LORASWEEP_CACHE"
"""The environment variable that names another cache folder than ~/.cache/lorasweep."""

MOST_BYTES = 4 * 2**30
MOST_SECONDS = 1800.0
"""Limits of a download."""

TIMEOUTS = (10.0, 60.0)
"""Seconds to wait for a connection, and for more of the file."""

# Suffix by the type that a server names, where neither the address nor the file's name tells.
_TYPES = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/zip": ".zip",
}
# A `Path` of an address has lost one of its slashes.
_ADDRESS = re.compile(r"(https?):/{1,2}(?=[^/])", re.IGNORECASE)
_PART = ".part"


def as_address(path: str | Path) -> str:
    """The address that a user means by `path`; empty if it is none."""
    text = str(path)
    return _ADDRESS.sub(r"\1://", text, count=1) if _ADDRESS.match(text) else ""


def address_name(address: str) -> str:
    """The address without its query, which may hold a key."""
    return address.partition("?")[0].partition("#")[0]


def cache_folder() -> Path:
    """Where downloads are kept."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).expanduser() / "downloads"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lorasweep" / "downloads"


def download(address: str, formats: Sequence[str]) -> tuple[Path, str]:
    """The file at `address`, and where it is the copy of an earlier download a note that says so.

    Args:
        formats: suffixes that can be read; a name of the file that ends otherwise is given one by its type.

    Raises:
        DataError: an address with a password, a server that does not answer or has no such file, a web page, or a
            file beyond the limits.
    """
    name = address_name(address)
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise DataError(f"{name}: not an address ({error}); check it") from None
    if parts.username or parts.password:
        raise DataError(
            f"{parts.scheme}://...@{parts.hostname}: the address holds a password, which would be recorded with the "
            "sweep; download the file yourself"
        )
    from filelock import FileLock

    folder = cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if kept := [file for file in sorted(folder.iterdir()) if file.suffix != _PART]:
                day = datetime.fromtimestamp(kept[0].stat().st_mtime).strftime("%Y-%m-%d %H:%M")
                return kept[0], f"{name} was downloaded on {day}; delete {kept[0]} to download it again"
            return _fetched(address, name, folder, formats), ""
    except OSError as error:
        raise DataError(
            f"{name} cannot be kept in {folder} ({error.strerror or error}); name another folder in {CACHE_VARIABLE}"
        ) from None


def _fetched(address: str, name: str, folder: Path, formats: Sequence[str]) -> Path:
    import requests
    from urllib3.exceptions import HTTPError

    began = time.monotonic()
    # As it is: what a server packs for the way would not be what the file's name says.
    headers = {"Accept-Encoding": "identity", "User-Agent": "lorasweep"}
    try:
        with requests.get(address, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            if not response.ok:
                phrase = f"{response.status_code} {_phrase(response.status_code)}".rstrip()
                raise DataError(
                    f"{name}: the server answers {phrase}; check the address, or download it yourself"
                )
            kind = str(response.headers.get("Content-Type", "")).partition(";")[0].strip().lower()
            if kind == "text/html":
                raise DataError(
                    f"{name} is a web page, not a file; give the address that its download link has"
                )
            _check_size(name, int(response.headers.get("Content-Length") or 0), folder)
            file = folder / _file_name(address, response.headers, kind, formats)
            part = file.with_name(file.name + _PART)
            size = 0
            with part.open("wb") as out:
                for chunk in response.raw.stream(1 << 20, decode_content=False):
                    out.write(chunk)
                    size += len(chunk)
                    _check_size(name, size)
                    if time.monotonic() - began > MOST_SECONDS:
                        raise DataError(
                            f"{name} takes longer than {MOST_SECONDS / 60:g} minutes; download it yourself"
                        )
            return part.replace(file)
    except (requests.Timeout, requests.ConnectionError) as error:
        waited = isinstance(error, requests.Timeout)
        reason = "the server does not answer in time" if waited else "no connection to the server"
        raise DataError(f"{name}: {reason}; check the address and the network") from None
    except (requests.RequestException, HTTPError, ValueError) as error:
        raise DataError(f"{name} cannot be downloaded ({first_line(error)}); try again") from None
    finally:
        for part in folder.glob(f"*{_PART}"):
            with suppress(OSError):
                part.unlink()


def _check_size(name: str, size: int, folder: Path | None = None) -> None:
    if size > MOST_BYTES:
        raise DataError(f"{name} has more than {MOST_BYTES / 2**30:g} GiB; download it yourself")
    if folder is not None and size > (free := shutil.disk_usage(folder).free):
        raise DataError(
            f"{name} has {size / 2**20:,.0f} MiB, and {folder} has {free / 2**20:,.0f} MiB left; make room, or name "
            f"another folder in {CACHE_VARIABLE}"
        )


def _file_name(address: str, headers: Any, kind: str, formats: Sequence[str]) -> str:
    """A name for the file that tells its format: the address's, else the server's, else one by its type."""
    message = Message()
    message["Content-Disposition"] = str(headers.get("Content-Disposition", ""))
    told = [unquote(urlsplit(address).path), message.get_filename() or ""]
    names = [re.sub(r"[^\w.-]", "_", PurePosixPath(path.replace("\\", "/")).name)[-100:] for path in told]
    for name in names:
        if any(suffix in formats for suffix in PurePosixPath(name.lower()).suffixes[-2:]):
            return name
    return (names[0].strip(".") or "data") + _TYPES.get(kind, "")


def _phrase(status: int) -> str:
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return ""
