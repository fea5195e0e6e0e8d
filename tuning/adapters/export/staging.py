"""Files and folders that appear under their name whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorasweep.training.errors import ExportError


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that takes its name at the end, and is removed when something fails.

    Raises:
        ExportError: `out` exists or cannot be written.
    """
    if os.path.lexists(out):
        raise ExportError(f"--out {out}: exists already; remove it or choose another folder")
    with _staged(out, file=False) as stage:
        yield stage


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """An empty file beside `out` that takes its name at the end, and is removed when something fails.

    Raises:
        ExportError: `out` exists or cannot be written.
    """
    with _staged(out, file=True) as stage:
        yield stage


def _make(out: Path, file: bool) -> Path:
    prefix = f".{out.name[:100]}."
    if not file:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=out.suffix, dir=out.parent)
    os.close(handle)
    return Path(name)


@contextmanager
def _staged(out: Path, file: bool) -> Iterator[Path]:
    out = Path(os.path.abspath(out))  # noqa: PTH100 - a name such as "x/.." has to become one, links may stay
    made = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = _make(out, file)
    except OSError as error:
        raise ExportError(
            f"--out {out}: cannot be written ({error.strerror}); choose another place"
        ) from error
    try:
        yield stage
        umask = os.umask(0)
        os.umask(umask)
        # A temporary one's own mode lets nobody else read it.
        stage.chmod((0o666 if file else 0o777) & ~umask)
        if os.path.lexists(out):
            raise ExportError(f"--out {out}: appeared while it was being written; choose another name")
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
