"""Files that are written whole or not at all, and locks that die with their process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import psutil
from filelock import FileLock, Timeout
from pydantic import ValidationError

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.trial_records import Record

RecordT = TypeVar("RecordT", bound=Record)

# `is_held` takes a lock for an instant, so a lock counts as held only if it stays so for this long.
HOLD_SECONDS, ASK_SECONDS = 0.5, 0.1
URL_SYNTAX = re.compile(r"%(?=[0-9A-Fa-f]{2})|[?{}]")


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: write a new one beside it, flush it to disk, rename it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database.

    Only what SQLAlchemy would take for something else is escaped, and braces, which Optuna fills in. MLflow takes
    the URL's text for the path when it makes the database's folder, so that each escape makes a second folder.
    """
    escaped = URL_SYNTAX.sub(lambda found: quote(found.group()), str(path.resolve()))
    return f"sqlite:///{escaped}"


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    """Read one JSON record.

    Raises:
        SettingsError: the file is broken.
    """
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise SettingsError(
            f"{path}: not a readable record ({type(error).__name__}); restore or remove it"
        ) from error


@contextmanager
def hold(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file. The operating system releases it when the process dies, even by `kill -9`.

    The file stays, and holds the process id of its last owner.

    Args:
        refusal: the error message if another process holds it.

    Raises:
        SettingsError: another process holds it.
    """
    lock = FileLock(path, timeout=HOLD_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise SettingsError(refusal) from None
    try:
        with suppress(OSError):  # Windows lets nobody write into a locked file
            path.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a living process holds this lock file."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=ASK_SECONDS, poll_interval=ASK_SECONDS / 5):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's folder: its lock can be read, but not taken
        pid = path.read_text().strip()
        return pid.isdecimal() and psutil.pid_exists(int(pid))
