"""MLflow on a thread of its own: a store that is slow, or hangs, holds up no trial."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lorasweep.tuning.record.folder import RegisteredVersion, SweepResult, TrialRecord
from lorasweep.tuning.record.listener import SweepListener

log = logging.getLogger("lorasweep")

PATIENCE = 300.0


class Tracked(Protocol):
    """What `Tracking` does with a store; any call may take long, and none raises for what the store does."""

    def start(self, summary: Mapping[str, Any]) -> None:
        """The sweep begins or goes on."""

    def update(self, trial: TrialRecord) -> None:
        """A trial began, reached a rung, or ended."""

    def finish(self, result: SweepResult, adapters: Mapping[str, Path]) -> bool:
        """The sweep ended; whether the store has all of it now."""

    def register(self, name: str) -> RegisteredVersion:
        """Make the winner a version of a registered model."""


class TrackingThread:
    """Hands a sweep's news to `Tracking` on a thread of its own, which alone speaks with the store meanwhile.

    Records that wait are not lined up: of each trial the newest waits, which holds all that the older ones
    held. So a store that takes a second for each of them falls behind and catches up, and the line never
    grows longer than there are trials. What a sweep that dies has not sent is in its folder, as ever.

    Args:
        patience: seconds that the end of a sweep waits for the store to take all of it.
    """

    def __init__(self, tracking: Tracked, patience: float = PATIENCE) -> None:
        self._tracking = tracking
        self._patience = patience
        self._news = threading.Condition()
        self._summary: Mapping[str, Any] | None = None
        self._waiting: dict[str, TrialRecord] = {}
        self._end: tuple[SweepResult, Mapping[str, Path]] | None = None
        self._complete = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, summary: Mapping[str, Any]) -> None:
        """The sweep begins or goes on."""
        with self._news:
            self._summary = summary
        self._run()

    def update(self, trial: TrialRecord) -> None:
        """A trial began, reached a rung, or ended."""
        with self._news:
            self._waiting[trial.id] = trial
            self._news.notify()

    def finish(self, result: SweepResult, adapters: Mapping[str, Path]) -> bool:
        """Wait until the store has all of the sweep, but no longer than patience lasts.

        Returns:
            Whether it has.
        """
        with self._news:
            # The end reads every trial from the sweep's folder.
            self._waiting.clear()
            self._end = (result, adapters)
            self._news.notify()
        thread = self._run()
        thread.join(self._patience)
        if thread.is_alive():
            log.warning(
                "MLflow is too slow to wait for: it has had %.0f s for the end of the sweep, which is whole in "
                "its folder; fill MLflow with: lorasweep publish",
                self._patience,
            )
            return False
        if self._error is not None:
            raise self._error
        return self._complete

    def register(self, name: str) -> RegisteredVersion:
        """Make the winner a version of a registered model, once the store has all of the sweep."""
        return self._tracking.register(name)

    def _run(self) -> threading.Thread:
        if self._thread is None:
            # A daemon, so that a store that hangs does not keep the process from ending.
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        return self._thread

    def _work(self) -> None:
        try:
            while self._send_next():
                pass
        except BaseException as error:  # a bug of ours: it is told where the sweep waits for the end
            self._error = error

    def _send_next(self) -> bool:
        with self._news:
            self._news.wait_for(lambda: self._summary is not None or self._waiting or self._end is not None)
            summary, self._summary = self._summary, None
            end = self._end
            trial = None
            if summary is None and end is None:
                trial = self._waiting.pop(next(iter(self._waiting)))
        # Not under the lock: this is what takes long.
        if summary is not None:
            self._tracking.start(summary)
        elif trial is not None:
            self._tracking.update(trial)
        elif end is not None:
            self._complete = self._tracking.finish(*end)
            return False
        return True


class TrackedSweep(SweepListener):
    """MLflow's copy as a listener of the sweep."""

    def __init__(self, tracking: Tracked) -> None:
        self.published = False
        self._thread = TrackingThread(tracking)

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        self._thread.start(plan_summary)

    def update(self, trial: TrialRecord) -> None:
        self._thread.update(trial)

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        self.published = self._thread.finish(result, adapters)

    def register(self, name: str) -> RegisteredVersion:
        """Make the winner a version of a registered model."""
        return self._thread.register(name)
