"""Files and folders that appear under their name whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lorasweep.training.errors import ExportError


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that takes its name at the end, and is gone when something fails.

    Raises:
        ExportError: `out` exists, or there is no place for it.
    """
    out = _absolute(out)
    if os.path.lexists(out):
        raise ExportError(f"--out {out}: exists already; remove it or choose another folder")

    def make() -> Path:
        return Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", dir=out.parent))

    with _staged(out, make, mode=0o777, place="folder", name="folder") as stage:
        yield stage


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """An empty file beside `out` that takes its name at the end, and is gone when something fails.

    Raises:
        ExportError: `out` exists, or there is no place for it.
    """
    out = _absolute(out)

    def make() -> Path:
        handle, name = tempfile.mkstemp(prefix=f".{out.name[:100]}.", suffix=out.suffix, dir=out.parent)
        os.close(handle)
        return Path(name)

    with _staged(out, make, mode=0o666, place="place", name="name") as stage:
        yield stage


def _absolute(out: Path) -> Path:
    return Path(os.path.abspath(out))  # noqa: PTH100 - a name such as "x/.." has to become one, links may stay


@contextmanager
def _staged(out: Path, make: Callable[[], Path], *, mode: int, place: str, name: str) -> Iterator[Path]:
    made = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = make()
    except OSError as error:
        raise ExportError(
            f"--out {out}: cannot be written ({error.strerror}); choose another {place}"
        ) from error
    try:
        yield stage
        umask = os.umask(0)
        os.umask(umask)
        stage.chmod(mode & ~umask)  # a temporary one's own mode lets nobody else read it
        if os.path.lexists(out):
            raise ExportError(f"--out {out}: appeared while it was being written; choose another {name}")
        stage.rename(out)
    except BaseException as error:
        if stage.is_dir() and not stage.is_symlink():
            shutil.rmtree(stage, ignore_errors=True)
        else:
            stage.unlink(missing_ok=True)
        for parent in made:
            parent.rmdir()
        if isinstance(error, OSError) and error.errno is not None:
            raise ExportError(f"--out {out}: cannot be written ({error.strerror})") from error
        raise
