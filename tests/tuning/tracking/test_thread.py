"""`TrackingThread` on stores that take their time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lorasweep.tuning.record.folder import RegisteredVersion, SweepResult, TrialRecord
from lorasweep.tuning.record.results import EvaluationRecord
from lorasweep.tuning.tracking.thread import TrackingThread

RESULT = SweepResult(state="finished", metric="accuracy")


class Store:
    """Notes what it is told; each call waits at a gate."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.threads: set[str] = set()

    def open(self) -> None:
        """Let everything pass from now on."""
        self.gate.release(1000)

    def _take(self, what: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        self.gate.acquire()
        self.told.append(what)

    def start(self, summary: Mapping[str, Any]) -> None:
        self._take(f"start {summary['rows']}")

    def update(self, trial: TrialRecord) -> None:
        self._take(f"{trial.id} {len(trial.evaluations)}")

    def finish(self, result: SweepResult, adapters: Mapping[str, Path]) -> bool:
        self._take(f"finish {result.state} {list(adapters)}")
        return True

    def register(self, name: str) -> RegisteredVersion:
        self._take(f"register {name}")
        return RegisteredVersion(name=name, version="1", alias="champion", reason="the first")


def trial(number: int, rungs: int) -> TrialRecord:
    evaluations = tuple(EvaluationRecord(rung=rung, accuracy=0.5, score=0.5) for rung in range(1, rungs + 1))
    return TrialRecord(id=f"t{number:03d}", number=number, searched=(), evaluations=evaluations)


def test_nobody_waits_and_the_newest_of_each_trial_is_sent() -> None:
    store = Store()
    thread = TrackingThread(store)
    began = time.monotonic()
    thread.start({"rows": 60})
    assert store.entered.acquire(timeout=10)
    for rungs in range(5):
        thread.update(trial(0, rungs))
        thread.update(trial(1, rungs))
    assert time.monotonic() - began < 5
    assert store.told == []
    store.gate.release(3)
    wait_for(store, 3)
    assert store.entered.acquire(timeout=10)
    assert store.entered.acquire(timeout=10)
    assert store.told == ["start 60", "t000 4", "t001 4"]

    thread.update(trial(1, 5))
    assert store.entered.acquire(timeout=10)
    # One in flight, and one that waits: the end reads the folder, which has both.
    thread.update(trial(0, 5))
    store.open()
    assert thread.finish(RESULT, {"t000": Path("best")})
    assert store.told[3] == "t001 5"
    assert store.told[-1] == "finish finished ['t000']"
    assert store.threads == {"mlflow"}
    assert thread.register("news").version == "1"


def wait_for(store: Store, calls: int) -> None:
    deadline = time.monotonic() + 10
    while len(store.told) < calls and time.monotonic() < deadline:
        time.sleep(0.01)


def test_the_end_waits_for_a_store_only_so_long(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    thread = TrackingThread(store, patience=0.2)
    thread.start({"rows": 60})
    with caplog.at_level(logging.WARNING, logger="lorasweep"):
        assert not thread.finish(RESULT, {})
    (line,) = caplog.messages
    assert "lorasweep publish" in line
    store.open()


def test_a_sweep_that_ends_before_it_began_is_recorded_too() -> None:
    store = Store()
    store.open()
    assert TrackingThread(store).finish(RESULT, {})
    assert store.told == ["finish finished []"]


def test_a_bug_does_not_pass_in_silence() -> None:
    class Broken(Store):
        def update(self, trial: TrialRecord) -> None:
            raise ZeroDivisionError

    store = Broken()
    store.open()
    thread = TrackingThread(store)
    thread.start({"rows": 60})
    thread.update(trial(0, 1))
    wait_for(store, 1)
    time.sleep(0.1)
    with pytest.raises(ZeroDivisionError):
        thread.finish(RESULT, {})
