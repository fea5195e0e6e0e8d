"""Stops a sweep whose disk is full, whose nodes fail, or whose trials keep failing for the same reason."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ray import tune

from lorasweep.training.loop.fine_tune import NOT_FINITE
from lorasweep.tuning.record.finalists import finalists, searched_trials
from lorasweep.tuning.record.reported import DISK_FULL, NODE_FAILED
from lorasweep.tuning.record.trial_records import TrialRecord

# After this many in a row the next one would most likely fail, too.
FAILURES_IN_A_ROW = 3
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")


class FailureWatch(tune.Stopper):
    """Counts consecutive failures, and ends Ray Tune's loop once there are too many; running trials stay resumable.

    Attributes:
        reason: why the sweep has to stop, or None.
        disk_full: the reason is a full disk, not a trial.
        of_node: the reason is a node, not a trial.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.disk_full = self.of_node = False
        self._scored = False
        self._last = ""
        self._count = 0

    def went_well(self) -> None:
        """A trial ended with a score."""
        self._scored, self._last, self._count = True, "", 0

    def failed(self, error: str) -> None:
        """A trial failed."""
        if NOT_FINITE in error and self._scored:
            # Bad hyperparameters diverge, which the search may well try again; nothing is broken.
            return
        kind = _kind(error)
        self._count = self._count + 1 if kind == self._last else 1
        self._last = kind
        if self._count >= FAILURES_IN_A_ROW and self.reason is None:
            self.reason = f"{self._count} trials in a row failed for the same reason: {error}"

    def repeated(self, error: str) -> bool:
        """Whether this is the reason for which the last trials failed, one after the other."""
        return self._count >= FAILURES_IN_A_ROW and _kind(error) == self._last

    def no_space(self, place: object) -> None:
        """A file could not be written: the disk is full."""
        self.reason, self.disk_full = f"{DISK_FULL}: {place} cannot be written", True

    def node_failed(self, reason: str) -> None:
        """A node fails, and the trials that it broke find no other."""
        if self.reason is None:
            self.reason, self.of_node = reason, True

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """Whether to stop this trial: never."""
        return False

    def stop_all(self) -> bool:
        """Whether the sweep has to end."""
        return self.reason is not None


def worth_another_try(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Failed trials that say nothing about their settings: all where none has ended well, else those that failed
    for the reason that stopped the sweep, or because of a node. Search trials and finalists are looked at apart.
    """
    return [*_worth_another(searched_trials(trials)), *_worth_another(finalists(trials))]


def _worth_another(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    ended = sorted((trial for trial in trials if not trial.unfinished), key=lambda trial: trial.ended or 0.0)
    failed = [trial for trial in trials if trial.state == "failed"]
    if len(failed) == len(ended):
        return failed
    watch = FailureWatch()
    for trial in ended:
        if (trial.error or "").startswith(NODE_FAILED):
            continue
        if trial.state == "failed":
            watch.failed(trial.error or "")
        else:
            watch.went_well()
    return [
        trial
        for trial in failed
        if watch.repeated(trial.error or "") or (trial.error or "").startswith(NODE_FAILED)
    ]


def _kind(error: str) -> str:
    """An error without its numbers: the same reason may name another size each time."""
    return NUMBER.sub("#", error)
