"""What stops a whole sweep: a full disk, or trials that fail one after the other for the same reason."""

from __future__ import annotations

import re

from ray import tune

from lorasweep.training.loop.fine_tune import NOT_FINITE
from lorasweep.tuning.record.reported import DISK_FULL

# Trials in a row: one more would most likely fail too, and each may cost an hour.
FAILURES_IN_A_ROW = 3
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")


class FailureWatch:
    """Counts failures in a row.

    Attributes:
        reason: why the sweep has to stop, once it has to.
        disk_full: that reason is a full disk, so nothing is wrong with any trial.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.disk_full = False
        self._scored = False
        self._last = ""
        self._count = 0

    def went_well(self) -> None:
        """A trial ended with a score."""
        self._scored, self._last, self._count = True, "", 0

    def failed(self, error: str) -> None:
        """A trial failed."""
        if NOT_FINITE in error and self._scored:
            # An answer about its settings, which the search may ask about again; nothing is broken.
            return
        kind = NUMBER.sub("#", error)
        self._count = self._count + 1 if kind == self._last else 1
        self._last = kind
        if self._count >= FAILURES_IN_A_ROW and self.reason is None:
            self.reason = f"{self._count} trials in a row failed for the same reason: {error}"

    def no_space(self, place: object) -> None:
        """Something could not be written."""
        self.reason, self.disk_full = f"{DISK_FULL}: {place} cannot be written", True


class StopOnFailures(tune.Stopper):
    """Ends Ray Tune's loop once the watch has a reason; trials that run are left as they stand."""

    def __init__(self, watch: FailureWatch) -> None:
        self._watch = watch

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """No single trial is stopped."""
        return False

    def stop_all(self) -> bool:
        """Whether the sweep has to end."""
        return self._watch.reason is not None
