"""Failures that stop a sweep, and those that do not."""

from __future__ import annotations

import errno
import os

import pytest

from lorasweep.training.loop.fine_tune import NOT_FINITE
from lorasweep.tuning.record.reported import DISK_FULL, is_disk_full
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.trials.failures import FailureWatch, worth_another_try

REASON = "target_modules: 'x' matches no module (3 tried)"


def watch_of(*errors: str | None) -> FailureWatch:
    """A watch that has seen trials fail with these reasons; None went well."""
    watch = FailureWatch()
    for error in errors:
        if error is None:
            watch.went_well()
        else:
            watch.failed(error)
    return watch


def test_the_same_reason_three_times_in_a_row() -> None:
    """Numbers in it may differ; another reason, or a trial that went well, begins the count anew."""
    watch = watch_of(REASON, REASON.replace("3", "44"), REASON)
    assert watch.reason == f"3 trials in a row failed for the same reason: {REASON}"
    assert watch.stop_all()
    assert watch_of(REASON, REASON, "another", REASON).reason is None
    assert watch_of(REASON, REASON, None, REASON).reason is None
    assert not watch_of(REASON).stop_all()
    assert not watch("t000", {})


def test_settings_that_diverge_stop_a_sweep_only_where_none_has_worked() -> None:
    diverged = [f"{NOT_FINITE} (nan) at step {step}, learning rate 0.01" for step in (3, 7, 11)]
    assert watch_of(*diverged).reason
    assert watch_of(None, *diverged, *diverged).reason is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "(sqlite3.OperationalError) database or disk is full",
        f"{DISK_FULL}: /some/where",
    ],
)
def test_a_full_disk_by_its_names(error: OSError | str) -> None:
    assert is_disk_full(error)
    wrapped = RuntimeError("callback failed")
    wrapped.__cause__ = error if isinstance(error, OSError) else RuntimeError(error)
    assert is_disk_full(wrapped)


def test_other_errors_are_no_full_disk() -> None:
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_disk_full("")
    assert not is_disk_full(None)
    watch = FailureWatch()
    watch.no_space("/mlruns")
    assert watch.disk_full
    assert watch.reason == f"{DISK_FULL}: /mlruns cannot be written"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # None has ended well, so nothing is known about their settings.
        ("broke other running", [0, 1]),
        ("broke well", []),
        # In a row for one reason: that reason stopped the sweep, and has been mended.
        ("broke0 well other diverged broke1 broke2 broke3 running", [0, 4, 5, 6]),
        ("broke0 broke1 broke2 well", []),
        ("well diverged diverged diverged", []),
        ("running", []),
    ],
)
def test_failures_that_say_nothing_about_their_settings(ends: str, expected: list[int]) -> None:
    states = {"well": "completed", "running": "running"}
    trials = [
        TrialRecord.model_validate(
            {
                "id": f"t{number:03d}",
                "number": number,
                "state": states.get(end, "failed"),
                "error": None if end in states else NOT_FINITE if end == "diverged" else end,
                "ended": None if end == "running" else float(number),
            }
        )
        for number, end in enumerate(ends.split())
    ]
    assert [trial.number for trial in worth_another_try(trials)] == expected


def test_finalists_that_all_failed_are_tried_again_whatever_the_search_did() -> None:
    ended = TrialRecord(id="t000", number=0, state="completed", ended=1)
    last = [
        TrialRecord(
            id=f"t00{number}-full",
            number=number,
            finalist_of=f"t00{number}",
            state="failed",
            error=f"e{number}",
        )
        for number in range(2)
    ]
    assert worth_another_try([ended, *last]) == last
    assert worth_another_try([ended, last[0], last[1].model_copy(update={"state": "completed"})]) == []
