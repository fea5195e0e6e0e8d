"""A sweep's record on its storage, beside the checkpoints: what the driver's machine holds outlives that machine.

    NAME-ID/
        driver.json        which process runs the sweep, and when it was last heard of
        record/            the sweep's folder, without what belongs to one machine: config.yaml, trials/, data/, ...

`restore.py` makes a sweep's folder of it on another machine.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import secrets
import socket
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorasweep.training.errors import SettingsError, first_line
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.stopwatch import RUNS_FILE
from lorasweep.tuning.record.trial_records import Record, TrialRecord, now
from lorasweep.tuning.storage.storage import Storage

log = logging.getLogger("lorasweep")

RECORD = "record"
DRIVER_FILE = "driver.json"
STUDY = "study.db"
# What belongs to this machine: Ray's folder, the lock, and files of SQLite and of writers that are at work.
LEFT_OUT = ("ray", "lock")
# Between two signs of life. A driver that has given none for some of them is taken for dead.
BEAT_SECONDS = 20.0
# Between two copies: evaluations of several trials go together.
COPY_SECONDS = 5.0
# A storage that failed is tried again after this time.
RETRY_SECONDS = 15.0
# How long the end of a sweep waits for its record to be copied.
PATIENCE_SECONDS = 120.0


class Driver(Record):
    """The process that runs a sweep.

    Attributes:
        run: its own mark.
        host: name of its machine.
        pid: of the process there.
        seen: its last sign of life, in seconds since 1970 by its own clock.
        ended: whether it has ended, and the record is whole.
    """

    run: str
    host: str
    pid: int
    seen: float
    ended: bool = False


def read_driver(storage: Storage) -> Driver | None:
    """Who runs a sweep, or ran it last. Raises `OSError` where the storage cannot be read."""
    content = storage.read(DRIVER_FILE)
    try:
        return None if content is None else Driver.model_validate_json(content)
    except ValidationError:
        return None


class RecordCopy(SweepListener):
    """Copies a sweep's folder to its storage whenever a trial starts, is evaluated or ends, on a thread of its own.

    Files are written whole. A storage that fails holds nobody up: it is told once, and tried again. Where a process on
    another machine has taken the sweep over, this one stops as if interrupted.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._driver = Driver(
            run=secrets.token_hex(4), host=socket.gethostname(), pid=os.getpid(), seen=now()
        )
        self._news = threading.Condition()
        self._changed = True
        self._ended = False
        # File of a trial → its state, as the study on the storage knows it.
        self._studied: dict[str, str] | None = None
        # Name of a file → size and time of the version on the storage.
        self._copied: dict[str, tuple[int, int]] = {}
        self._begun = False
        self._failing = ""
        self._lost = False
        self._thread = threading.Thread(target=self._work, name="record", daemon=True)

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """Say who runs the sweep, and copy what there is."""
        # Before, a new sweep's folder there had no name.
        self._storage = Storage.of(self._folder)
        self._thread.start()

    def update(self, trial: TrialRecord) -> None:
        """Copy what has changed."""
        with self._news:
            self._changed = True
            self._news.notify()

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """Copy all that is left, and wait for that while patience lasts."""
        if not self._thread.ident:  # it has not begun: nothing new is on record
            return
        with self._news:
            self._ended = True
            self._news.notify()
        self._thread.join(PATIENCE_SECONDS)
        if self._lost or not (self._failing or self._thread.is_alive()):
            return
        why = self._failing or f"{self._storage.named} is too slow"
        log.warning(
            "%s; the sweep's record is complete in %s; copy it later with: %s",
            why,
            self._folder.path,
            self._folder.command("publish"),
        )

    def publish(self) -> None:
        """Copy what the storage lacks, on the caller's thread; nothing where the sweep has run last elsewhere.

        Raises:
            SettingsError: the storage cannot be read or written.
        """
        self._storage = Storage.of(self._folder)
        try:
            driver = read_driver(self._storage)
            if driver is None or driver.host == self._driver.host:
                self._copy_files()
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(f"{self._storage.named}: cannot be written ({first_line(error)})") from error

    def _work(self) -> None:
        while not self._lost:
            with self._news:
                # A last look at the end, whatever was copied before.
                ended, self._changed = self._ended, False
            try:
                self._copy()
                self._failing = ""
            except (OSError, sqlite3.Error) as error:
                self._tell(error)
            if ended:
                return
            with self._news:
                if self._failing:
                    self._news.wait_for(lambda: self._ended, RETRY_SECONDS)
                else:
                    self._news.wait_for(lambda: self._ended, COPY_SECONDS)
                    self._news.wait_for(lambda: self._changed or self._ended, BEAT_SECONDS)

    def _copy(self) -> None:
        """Give a sign of life, and copy what has changed."""
        if not self._alone():
            return
        self._copy_files()
        if self._ended:
            self._beat(ended=True)

    def _copy_files(self) -> None:
        # Read first: of each trial on the storage the study there must know, and it is taken after them.
        changed = {
            name: (stamp, self._read(name))
            for name, stamp in self._files()
            if self._copied.get(name) != stamp
        }
        trials = {
            name: json.loads(content)["state"]
            for name, (_, content) in changed.items()
            if content is not None and name.startswith("trials/")
        }
        studied = (self._studied or {}) | trials
        if not self._ended and studied == self._studied:
            # It changes all the time.
            changed.pop(RUNS_FILE, None)
        if studied != self._studied:
            self._storage.write(f"{RECORD}/{STUDY}", study_bytes(self._folder.path / STUDY))
            self._studied = studied
        for name, (stamp, content) in changed.items():
            if content is not None:
                self._storage.write(f"{RECORD}/{name}", content)
                self._copied[name] = stamp

    def _alone(self) -> bool:
        """Whether no other process has taken over the sweep; gives the sign of life."""
        if self._begun and not self._ended and now() - self._driver.seen < BEAT_SECONDS / 2:
            return True
        there = read_driver(self._storage)
        if self._begun and there is not None and there.run != self._driver.run:
            self._lost = True
            log.warning(
                "sweep %s: a process on %s runs it now; this one stops", self._folder.name, there.host
            )
            if not self._ended:
                _thread.interrupt_main()
            return False
        self._beat()
        self._begun = True
        return True

    def _beat(self, ended: bool = False) -> None:
        self._driver = self._driver.model_copy(update={"seen": now(), "ended": ended})
        self._storage.write(DRIVER_FILE, self._driver.model_dump_json().encode())

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Name of each file that is copied, with its size and time. Results come last: they speak of the others."""
        root = self._folder.path
        paths = [path for path in root.rglob("*") if is_copied(path.relative_to(root))]
        for path in sorted(paths, key=lambda path: (path.name == "result.json", path)):
            try:
                stat = path.stat()
            except FileNotFoundError:  # replaced this moment, or removed
                continue
            if path.is_file():
                yield path.relative_to(root).as_posix(), (stat.st_size, stat.st_mtime_ns)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def _tell(self, error: Exception) -> None:
        before = self._failing
        self._failing = f"{self._storage.named} cannot be written ({first_line(error)})"
        if not before and not self._ended:
            log.warning("%s; the sweep goes on, and its record is copied there later", self._failing)


def is_copied(name: Path) -> bool:
    """Whether a file of a sweep's folder belongs to its record, and not to one machine."""
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and name.parts[0] not in LEFT_OUT and not name.parts[0].startswith(STUDY)


def study_bytes(path: Path) -> bytes:
    """A SQLite database as it stands between two transactions, whoever writes to it."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(":memory:")) as copy:
        source.backup(copy)
        return copy.serialize()
