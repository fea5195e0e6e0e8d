"""Steps after the trials that may fail, each with one line that says which and why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lorasweep.training.errors import LorasweepError, TrainingError, first_line
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.reported import is_disk_full

log = logging.getLogger("lorasweep")


@contextmanager
def step_of(folder: SweepFolder, step: str) -> Iterator[None]:
    """A step that the sweep cannot end without.

    Args:
        folder: of the sweep, for the message.
        step: what is done in the block, such as `scoring t003 on the test split`.

    Raises:
        TrainingError: it failed; the message says why and what to do.
    """
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise
        log.debug("why %s failed", step, exc_info=True)
        raise TrainingError(
            f"sweep {folder.name}: {step} failed ({reason(error)}); the trials are on record. Fix that, then: "
            f"{folder.command('resume')}"
        ) from error


@contextmanager
def optional_step(folder: SweepFolder, step: str, missing: dict[str, str]) -> Iterator[None]:
    """A step that the sweep can end without: if it fails, a log line says so, and `missing` why."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise
        missing[step] = reason(error)
        log.debug("why %s failed", step, exc_info=True)
        log.warning(
            "%s failed (%s); the sweep goes on without it, and later tries it again: %s",
            step,
            missing[step],
            folder.command("resume"),
        )


def reason(error: BaseException) -> str:
    """An error on one line; of a Ray worker's, what was raised there."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, BaseException) else error
    line = first_line(error)
    known = isinstance(error, LorasweepError) or line.startswith(type(error).__name__)
    return line if known else f"{type(error).__name__}: {line}"
