"""Checks a storage before anything is made: a small file is written, found, read and removed there, in limited time.

In a process of its own, which can be ended: neither a mounted folder that does not answer nor pyarrow's S3, which tries
again for minutes, gives up when asked to.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pyarrow.fs import FileSelector, FileSystem

from lorasweep.training.errors import SettingsError, first_line
from lorasweep.tuning.storage.filesystem import filesystem_at, has_credentials, is_local, without_credentials

# pyarrow's tries at a server that refuses connections end after 6 s; a worker's imports take a second or two.
ANSWER_SECONDS = 30
CHECK = ".lorasweep-check-"
MARK = "mark"
CONTENT = b"a check by lorasweep; it can be removed"
IN_ENVIRONMENT = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of each node"
# What pyarrow and AWS say → what to tell and to do.
PROBLEMS = {
    r"Unrecognized filesystem type|empty scheme": "no such kind of storage; name a folder, or a URI of s3, gs, abfs, "
    "hdfs or file",
    r"NO_SUCH_BUCKET|bucket does not exist|Bucket '.*' not found": "there is no such bucket; make it first",
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE|EXPIRED_TOKEN|InvalidToken|HTTP status 40[13]": (
        f"access is denied; see {IN_ENVIRONMENT}, and the rights to list, read, write and delete there"
    ),
    r"NETWORK_CONNECTION|resolve host": "the server cannot be reached; see the address, and AWS_ENDPOINT_URL",
}


def check_storage(storage: str | None, nodes: int) -> None:
    """Check that trials can keep their checkpoints on a storage.

    Args:
        storage: `--storage`, or None.
        nodes: of the cluster that is joined; 1 where there is none.

    Raises:
        SettingsError: it cannot be written, read and removed from here, it has not answered in time, or there is none
            and several nodes need one.
    """
    if storage is None:
        if nodes > 1:
            raise SettingsError(
                f"--address: the cluster has {nodes} nodes, and a trial's checkpoints have to be where all of them and "
                "this process find them: name a folder that they share, or a URI such as s3://..., with --storage"
            )
        return
    problem = _asked(storage)
    if problem:
        raise SettingsError(f"--storage {without_credentials(storage)}: {problem}")


def refuse_credentials(storage: str | None) -> None:
    """Refuse a URI that holds a secret: a sweep's settings are written to files, to MLflow and to logs.

    Raises:
        SettingsError: it does.
    """
    if storage is not None and has_credentials(storage):
        raise SettingsError(
            f"--storage {without_credentials(storage)}: the URI holds credentials, which would be written to the "
            f"sweep's files; leave them out, and set {IN_ENVIRONMENT} (for S3; for others what pyarrow reads)"
        )


def _asked(storage: str) -> str:
    """What a process of its own says of a storage; empty if all is well."""
    command = [sys.executable, "-P", "-m", __name__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        said, error = process.communicate(storage, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        # Not waited for: one that waits for a mounted folder does not even end when it is killed.
        process.kill()
        return f"no answer in {ANSWER_SECONDS} seconds; see the address, and whether it is mounted"
    except BaseException:
        process.kill()
        raise
    if process.returncode:
        last = error.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        return f"cannot be checked ({last[0][:160]})"
    return said.strip()


def problem_with(storage: str, mark: str | None = None) -> str:
    """Write, find, read and remove a small file; what is wrong, in words, or nothing. It may take minutes.

    Folders above it that it has made are removed, too.

    Args:
        mark: what `marked` has left there, for another node of a cluster.
    """
    try:
        filesystem, path = filesystem_at(storage)
        if not path:
            return "names no bucket or folder"
        if mark is not None and not filesystem.get_file_info(f"{path}/{mark}").is_file:
            return "the driver's files are not there; name a folder that all nodes share, or a URI"
        with _folder(filesystem, path) as folder:
            _try_out(filesystem, folder)
    except (OSError, ValueError, NotImplementedError) as error:
        return _in_words(error)
    return ""


@contextmanager
def marked(storage: str) -> Iterator[str]:
    """A file on the storage for the block; its name, by which `problem_with` sees on a node that the storage is shared.

    Raises:
        SettingsError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            filesystem, path = filesystem_at(storage)
            folder = stack.enter_context(_folder(filesystem, path))
            with filesystem.open_output_stream(f"{folder}/{MARK}") as stream:
                stream.write(CONTENT)
        except (OSError, ValueError, NotImplementedError) as error:
            raise SettingsError(f"--storage {without_credentials(storage)}: {_in_words(error)}") from error
        yield f"{folder[len(path) + 1 :]}/{MARK}"


@contextmanager
def _folder(filesystem: FileSystem, path: str) -> Iterator[str]:
    """A folder below a path for the block. It is removed after it, and so are those above it that it needed."""
    above = [Path(path), *Path(path).parents] if is_local(filesystem) else []
    made = [folder for folder in above if not folder.exists()]
    folder = f"{path}/{CHECK}{secrets.token_hex(4)}"
    try:
        filesystem.create_dir(folder)
        try:
            yield folder
        except BaseException:
            with suppress(OSError):
                filesystem.delete_dir(folder)
            raise
        filesystem.delete_dir(folder)
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _try_out(filesystem: FileSystem, folder: str) -> None:
    file = f"{folder}/file"
    with filesystem.open_output_stream(file) as stream:
        stream.write(CONTENT)
    listed = [entry.path for entry in filesystem.get_file_info(FileSelector(folder))]
    with filesystem.open_input_stream(file) as stream:
        content = stream.read()
    if listed != [file] or content != CONTENT:
        raise OSError("what is written there is not found again")


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, PermissionError):
        return "it cannot be written (permission denied); fix its permissions, or name another folder"
    for pattern, words in PROBLEMS.items():
        if re.search(pattern, text):
            return words
    detail = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return f"it cannot be used ({detail})"


if __name__ == "__main__":
    print(problem_with(sys.stdin.read()))
    # The file system's own threads may wait for a server for minutes.
    sys.stdout.flush()
    os._exit(0)
