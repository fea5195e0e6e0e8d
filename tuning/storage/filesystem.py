"""File systems of `--storage`: folders, and buckets without what folders cost there."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pyarrow.fs import (
    FileInfo,
    FileSelector,
    FileSystem,
    FileSystemHandler,
    FileType,
    LocalFileSystem,
    PyFileSystem,
)

# Names of query parameters whose values are secret: those of S3 (access_key, secret_key, session_token), and of
# others (sas_token, signature).
SECRET = re.compile(r"key|secret|token|password|signature|credential", re.I)


def is_uri(storage: str) -> bool:
    """Whether this is a URI and not the path of a folder."""
    return "://" in storage


@lru_cache
def filesystem_at(storage: str) -> tuple[FileSystem, str]:
    """The file system of a storage, and the storage's path on it; nothing is made or asked, except a bucket's region.

    Raises:
        OSError, ValueError: pyarrow knows no such scheme or option, or lacks a library for it.
    """
    if not is_uri(storage):
        return LocalFileSystem(), os.path.normpath(Path(storage).absolute())
    filesystem, path = FileSystem.from_uri(storage)
    if filesystem.type_name == "s3":
        filesystem = PyFileSystem(Bucket(filesystem))
    # As Ray writes it: without double slashes, or one at the end.
    return filesystem, PurePosixPath(path).as_posix() if path else ""


def is_local(filesystem: FileSystem) -> bool:
    """Whether files lie in folders of this machine, which may be mounted from elsewhere."""
    return isinstance(filesystem, LocalFileSystem)


def has_credentials(storage: str) -> bool:
    """Whether a URI holds a password, a key or a token."""
    if not is_uri(storage):
        return False
    parts = urlsplit(storage)
    user, at, _ = parts.netloc.rpartition("@")
    # abfs://container@account and hdfs://user@host name no secret.
    secret_user = bool(at) and (":" in user or parts.scheme == "s3")
    return secret_user or any(SECRET.search(name) for name, _ in parse_qsl(parts.query))


def without_credentials(storage: str) -> str:
    """A storage as messages show it: a URI without its options, and without a user who has a password."""
    if not is_uri(storage):
        return storage
    parts = urlsplit(storage)
    place = parts.netloc.rpartition("@")[2] if has_credentials(storage) else parts.netloc
    return f"{parts.scheme}://{place}{parts.path}"


# What Ray asks of a bucket without need. Before each checkpoint, whether the node reaches the storage, which writing it
# shows; and for each trial, when a round ends, for the files of Tune's loggers, which are off.
KNOWN = {
    ".validate_storage_marker": FileType.File,
    "result.json": FileType.NotFound,
    "progress.csv": FileType.NotFound,
}


class Bucket(FileSystemHandler):  # type: ignore[misc, unused-ignore]
    """S3 with a request for a file, and none for a folder.

    pyarrow writes an empty object for each folder above a file and asks for the bucket before, whenever Ray makes a
    folder, and writes a file of any size in three requests. A bucket needs no folders, and small files take one.

    Args:
        filesystem: a `S3FileSystem`.
    """

    def __init__(self, filesystem: Any) -> None:
        rebuild, (options,) = filesystem.__reduce__()
        # Parts that are sent in the background wait for threads that copy files, which wait for the parts
        # (apache/arrow#32372).
        self.filesystem = rebuild(options | {"allow_delayed_open": True, "background_writes": False})

    def __reduce__(self) -> tuple[Any, ...]:
        return Bucket, (self.filesystem,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bucket) and self.filesystem == other.filesystem

    def __hash__(self) -> int:
        return hash(type(self))

    def get_type_name(self) -> str:
        """As pyarrow's own."""
        return "s3"

    def normalize_path(self, path: str) -> str:
        """The path as S3 has it."""
        return str(self.filesystem.normalize_path(path))

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing: it is there as soon as it holds a file."""

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        """What lies at these paths."""
        names = [path.rpartition("/")[2] for path in paths]
        if all(name in KNOWN for name in names):
            return [FileInfo(path, KNOWN[name]) for path, name in zip(paths, names, strict=True)]
        return list(self.filesystem.get_file_info(paths))

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """What lies below a path."""
        return list(self.filesystem.get_file_info(selector))

    def delete_dir(self, path: str) -> None:
        """Delete all below a path."""
        self.filesystem.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all below a path."""
        self.filesystem.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        """Refused: that would be all buckets."""
        raise NotImplementedError("all buckets are not deleted")

    def delete_file(self, path: str) -> None:
        """Delete a file."""
        self.filesystem.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        """Move a file."""
        self.filesystem.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy a file."""
        self.filesystem.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        """A file to be read from its begin."""
        return self.filesystem.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        """A file to be read anywhere."""
        return self.filesystem.open_input_file(path)

    def open_output_stream(self, path: str, metadata: dict[str, str] | None) -> Any:
        """A file to be written; it appears when it is closed."""
        return self.filesystem.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: dict[str, str] | None) -> Any:
        """Refused, as S3 does."""
        return self.filesystem.open_append_stream(path, metadata=metadata)
