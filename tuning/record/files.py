"""Whole files or none: records are replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.results import Record

RecordT = TypeVar("RecordT", bound=Record)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: written beside it, flushed to the disk, renamed over it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


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
