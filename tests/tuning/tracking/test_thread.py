"""`MLflowCopy`'s thread on stores that take their time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord
from lorasweep.tuning.tracking.thread import MLflowCopy

RESULT = SweepResult(state="finished", metric="accuracy")


class Store:
    """In the place of `copy_sweep`: notes each call, which waits at a gate."""

    def __init__(self) -> None:
        self.copied: list[str] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.threads: set[str] = set()

    def open(self) -> None:
        """Let everything pass from now on."""
        self.gate.release(1000)

    def __call__(
        self, sweep: SweepRecord, runs: object, adapters: Mapping[str, Path] | None = None, **options: Any
    ) -> None:
        rungs = " ".join(f"{trial.id}:{len(trial.evaluations)}" for trial in sweep.trials)
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        self.gate.acquire()
        self.copied.append(f"{sweep.state} {rungs} {list(adapters or ())}")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr("lorasweep.tuning.tracking.thread.copy_sweep", store)
    monkeypatch.setattr(MLflowCopy, "_open", lambda self: object())
    return store


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "mlruns", "demo")
    folder.create(SweepConfig(name="demo"))
    return folder


def trial(number: int, rungs: int) -> TrialRecord:
    evaluations = tuple(EvaluationRecord(rung=rung, accuracy=0.5, score=0.5) for rung in range(1, rungs + 1))
    return TrialRecord(id=f"t{number:03d}", number=number, searched=(), evaluations=evaluations)


def test_nobody_waits_and_the_newest_of_each_trial_is_copied(store: Store, folder: SweepFolder) -> None:
    copy = MLflowCopy(folder, "sqlite:///none.db")
    began = time.monotonic()
    copy.begin({"rows": 60}, [trial(0, 0)])
    assert store.entered.acquire(timeout=10)
    for rungs in range(5):
        copy.update(trial(0, rungs))
        copy.update(trial(1, rungs))
    assert time.monotonic() - began < 5
    assert store.copied == []
    store.gate.release(2)
    assert store.entered.acquire(timeout=10)
    wait_for(store, 2)
    assert store.copied == ["running t000:0 []", "running t000:4 t001:4 []"]

    copy.update(trial(1, 5))
    assert store.entered.acquire(timeout=10)
    # One call under way, and news that wait: the end reads the folder, which has both.
    copy.update(trial(0, 5))
    folder.write_trial(trial(0, 5))
    store.open()
    copy.end(RESULT, {"t000": Path("best")})
    assert copy.published
    assert store.copied[2:] == ["running t000:4 t001:5 []", "finished t000:5 ['t000']"]
    assert store.threads == {"mlflow"}


def wait_for(store: Store, calls: int) -> None:
    deadline = time.monotonic() + 10
    while len(store.copied) < calls and time.monotonic() < deadline:
        time.sleep(0.01)


def test_the_end_waits_for_a_store_only_so_long(
    store: Store, folder: SweepFolder, caplog: pytest.LogCaptureFixture
) -> None:
    copy = MLflowCopy(folder, "sqlite:///none.db", patience=0.2)
    copy.begin({"rows": 60}, [])
    with caplog.at_level(logging.WARNING, logger="lorasweep"):
        copy.end(RESULT, {})
    assert not copy.published
    (line,) = caplog.messages
    assert "lorasweep publish demo" in line
    store.open()


def test_a_store_that_fails_is_left_alone_for_a_while(
    store: Store, folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two tries at once, and none for the next records; the end tries again."""
    tries: list[str] = []

    def fail(sweep: SweepRecord, *arguments: object, **options: object) -> None:
        tries.append(sweep.state)
        raise OSError("it hangs")

    monkeypatch.setattr("lorasweep.tuning.tracking.thread.copy_sweep", fail)
    copy = MLflowCopy(folder, "http://me:secret@host", retry_after=3600)
    with caplog.at_level(logging.WARNING, logger="lorasweep"):
        copy.begin({}, [])
        for rungs in range(20):
            copy.update(trial(0, rungs))
            time.sleep(0.02)
        copy.end(RESULT, {})
    assert tries == ["running", "running", "finished"]
    assert not copy.published
    assert [("sent later" in line, "publish demo" in line) for line in caplog.messages] == [
        (True, False),
        (False, True),
    ]
    assert "secret" not in caplog.text


def test_a_sweep_that_ends_before_it_began_is_copied_too(store: Store, folder: SweepFolder) -> None:
    store.open()
    copy = MLflowCopy(folder, "sqlite:///none.db")
    copy.end(RESULT, {})
    assert copy.published
    assert store.copied == ["finished  []"]


def test_a_bug_does_not_pass_in_silence(
    store: Store, folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: MLflowCopy) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(MLflowCopy, "_wait", broken)
    copy = MLflowCopy(folder, "sqlite:///none.db")
    copy.begin({"rows": 60}, [])
    with pytest.raises(ZeroDivisionError):
        copy.end(RESULT, {})
