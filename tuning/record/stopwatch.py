"""How long a sweep has run: kept on record while it runs, so that a killed run loses no more than a moment."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lorasweep.tuning.record.files import write_text
from lorasweep.tuning.record.trial_records import now

RUNS_FILE = "runs.json"
# Between two writes. A killed run loses at most this.
WRITE_SECONDS = 2.0


class Stopwatch:
    """The time of one run of a sweep, on top of the runs before it; made by `stopwatch`."""

    def __init__(self, folder: Path, recorded: float = 0.0) -> None:
        self._path = folder / RUNS_FILE
        self._runs = read_runs(folder)
        if not self._runs and recorded:
            self._runs = [{"started": 0.0, "seconds": recorded}]
        self._before = sum(run["seconds"] for run in self._runs)
        self._started = now()
        self._from = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="stopwatch", daemon=True)
        self._thread.start()

    def seconds(self) -> float:
        """Wall time so far, of all runs."""
        return self._before + time.monotonic() - self._from

    def stop(self) -> None:
        """Write the time of this run for the last time; a second call does nothing."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
            self._write()

    def _keep(self) -> None:
        self._write()
        while not self._stopped.wait(WRITE_SECONDS):
            self._write()

    def _write(self) -> None:
        run = {"started": self._started, "seconds": self.seconds() - self._before}
        with suppress(OSError):  # a full disk stops the sweep elsewhere, with a message
            write_text(self._path, json.dumps([*self._runs, run], indent=1))


@contextmanager
def stopwatch(folder: Path, recorded: float = 0.0) -> Iterator[Stopwatch]:
    """Take the time of this block as a run of the sweep in this folder, and keep it on record all along.

    Args:
        recorded: seconds of earlier runs, for a sweep whose runs are not on record.
    """
    watch = Stopwatch(folder, recorded)
    try:
        yield watch
    finally:
        watch.stop()


def read_runs(folder: Path) -> list[dict[str, float]]:
    """`started` (Unix time) and `seconds` of each run of the sweep in this folder; empty where none is on record."""
    try:
        return [
            {"started": float(run["started"]), "seconds": float(run["seconds"])}
            for run in json.loads((folder / RUNS_FILE).read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError):  # the time is no reason to refuse a sweep
        return []
