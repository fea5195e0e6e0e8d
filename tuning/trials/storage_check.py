"""A shared storage tried out: a file written, read and deleted, here and on each node."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.fs

from lorasweep.training.errors import SettingsError, first_line
from lorasweep.tuning.storage.filesystem import filesystem_at

# Files that are written to try a storage begin so, and are deleted at once.
MARK = ".lorasweep-try-"


def use_storage(storage: str, mark: str = "") -> None:
    """Write, read and delete a file of the storage.

    Args:
        storage: a full path, or a URI that pyarrow reads.
        mark: name of a file that another machine has written there; a folder of the same name that is not shared
            lacks it.

    Raises:
        SettingsError: one of these fails; one line says which.
    """
    content = secrets.token_hex(16).encode()
    step = "opened"
    try:
        filesystem, root = filesystem_at(storage)
        if mark and filesystem.get_file_info(f"{root}/{mark}").type != pyarrow.fs.FileType.File:
            raise SettingsError(
                f"--storage {storage} holds nothing of this machine's there; it has to be a folder that all nodes share"
            )
        path = f"{root}/{MARK}{secrets.token_hex(8)}"
        step = "written"
        with filesystem.open_output_stream(path) as file:
            file.write(content)
        try:
            step = "read"
            with filesystem.open_input_file(path) as file:
                same = file.read() == content
            step = "deleted from"
        finally:
            filesystem.delete_file(path)
    except (OSError, ValueError) as error:  # pyarrow raises ValueError for a scheme that it does not know
        raise SettingsError(f"--storage {storage} cannot be {step} there ({first_line(error)})") from error
    if not same:
        raise SettingsError(f"--storage {storage} gives back other bytes than were written")


@contextmanager
def marked(storage: str | None, seconds: float) -> Iterator[tuple[str | None, str]]:
    """Inside the block the storage holds a file, by which other machines know that it is the same.

    Args:
        storage: a path, a URI, or None.
        seconds: to wait for the storage.

    Yields:
        The storage, with a full path; and the file's name.

    Raises:
        SettingsError: the file cannot be written.
    """
    if storage is None:
        yield None, ""
        return
    uri = storage if "://" in storage else str(Path(storage).resolve())
    name = f"{MARK}{secrets.token_hex(8)}"
    problems: list[Exception] = []
    thread = threading.Thread(
        target=_write, args=(uri, name, problems), name="lorasweep-storage", daemon=True
    )
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise SettingsError(f"--storage {storage}: has not answered in {seconds:g} s")
    if problems:
        raise SettingsError(
            f"--storage {storage}: cannot be written ({first_line(problems[0])})"
        ) from problems[0]
    try:
        yield uri, name
    finally:
        with suppress(OSError):
            filesystem, root = filesystem_at(uri)
            filesystem.delete_file(f"{root}/{name}")


def _write(uri: str, name: str, problems: list[Exception]) -> None:
    try:
        filesystem, root = filesystem_at(uri)
        if "://" not in uri:
            filesystem.create_dir(root, recursive=True)
        with filesystem.open_output_stream(f"{root}/{name}") as file:
            file.write(b"")
    except (OSError, ValueError) as error:
        problems.append(error)
