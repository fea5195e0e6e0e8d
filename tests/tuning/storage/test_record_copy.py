"""A sweep's record on its storage: what a running sweep copies there, and a sweep's folder made of it elsewhere."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.stopwatch import stopwatch
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.storage import record_copy, restore
from lorasweep.tuning.storage.record_copy import RecordCopy, read_driver
from lorasweep.tuning.storage.restore import latest_folder, sweep_there
from lorasweep.tuning.storage.storage import Storage

ENDED = SweepResult(state="interrupted", metric="accuracy")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    monkeypatch.setattr(record_copy, "BEAT_SECONDS", 0.15)
    monkeypatch.setattr(record_copy, "COPY_SECONDS", 0.0)
    monkeypatch.setattr(record_copy, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(restore, "DEAD_SECONDS", 0.45)
    monkeypatch.setattr(restore, "POLL_SECONDS", 0.05)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`elsewhere(host)`: from now on this process is on a machine of that name."""
    return lambda host: monkeypatch.setattr(socket, "gethostname", lambda: host)


def sweep(mlruns: Path, storage: Path | str, name: str = "demo") -> SweepFolder:
    """A new sweep's folder, with a database of a table in place of the study."""
    folder = SweepFolder(mlruns, name)
    folder.create(SweepConfig.model_validate({"name": name, "resources": {"storage": str(storage)}}))
    Storage.claim(folder, new=True)
    (folder.path / "data").mkdir()
    (folder.path / "data" / "data.parquet").write_bytes(b"rows")
    (folder.path / "ray").mkdir()
    (folder.path / "ray" / "state").write_text("of this machine")
    (folder.path / "lock").touch()
    with sqlite3.connect(folder.path / "study.db") as study:
        study.execute("create table trials (number integer)")
    return folder


def trial(folder: SweepFolder, number: int, state: str = "running", **more: object) -> TrialRecord:
    """A trial that the study and the sweep's folder know."""
    with sqlite3.connect(folder.path / "study.db") as study:
        study.execute("insert into trials values (?)", (number,))
    entries = {"id": f"t{number:03d}", "number": number, "state": state, "started": 1.0, "searched": ()}
    record = TrialRecord.model_validate(entries | {"hyperparameters": Hyperparameters(), **more})
    folder.write_trial(record)
    return record


def numbers(folder: SweepFolder) -> list[int]:
    """The trials that the study of a folder knows."""
    with sqlite3.connect(folder.path / "study.db") as study:
        return [number for (number,) in study.execute("select number from trials")]


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(folder: SweepFolder, count: int) -> None:
    """A run of the sweep that starts so many more trials."""
    copy = RecordCopy(folder)
    with stopwatch(folder.path):
        copy.begin({}, folder.trials())
        first = len(folder.trials())
        for number in range(first, first + count):
            copy.update(trial(folder, number, "completed", score=0.5))
    copy.end(ENDED, {})


def test_a_sweep_goes_on_from_its_storage_on_an_empty_machine(
    tmp_path: Path, elsewhere: Callable[[str], None]
) -> None:
    storage = tmp_path / "shared"
    here = sweep(tmp_path / "here", storage)
    run(here, 3)
    shutil.rmtree(tmp_path / "here")
    elsewhere("another")
    assert sweep_there(tmp_path / "there", "demo", str(storage))
    there = latest_folder(tmp_path / "there", "demo", str(storage))
    assert [record.id for record in there.trials()] == ["t000", "t001", "t002"]
    assert numbers(there) == [0, 1, 2]
    assert (there.path / "data" / "data.parquet").read_bytes() == b"rows"
    assert Storage.of(there).owner == Storage.claim(there).owner
    names = {path.name for path in there.path.iterdir()}
    assert names == {"config.yaml", "data", "runs.json", "storage.json", "study.db", "trials"}
    # It is at the same place as before: nothing is doubled there.
    assert [path.name for path in storage.iterdir()] == [Path(Storage.of(there).root).name]


def test_each_trial_on_the_storage_is_in_the_study_there(tmp_path: Path) -> None:
    """Whenever the driver is killed: Optuna must not propose a trial's number a second time."""
    folder = sweep(tmp_path / "here", tmp_path / "shared")
    copy, record = RecordCopy(folder), Path(Storage.of(folder).root) / "record"
    copy.begin({}, ())
    for number in range(40):
        copy.update(trial(folder, number))
        # First what is on record there, then the study, which may only know more.
        ids = sorted(path.stem for path in record.glob("trials/*.json"))
        if not ids:
            continue
        with sqlite3.connect(f"file:{record / 'study.db'}?mode=ro&immutable=1", uri=True) as study:
            known = (
                {f"t{number:03d}" for (number,) in study.execute("select number from trials")}
                if ids
                else set()
            )
        assert set(ids) <= known
        time.sleep(0.002)
    copy.end(ENDED, {})
    assert len(list(record.glob("trials/*.json"))) == 40


def test_only_what_has_changed_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path / "here", tmp_path / "shared")
    copy, written = RecordCopy(folder), list[str]()
    write = Storage.write

    def noted(self: Storage, name: str, content: bytes) -> None:
        write(self, name, content)
        written.append(name)

    monkeypatch.setattr(Storage, "write", noted)
    copy.begin({}, ())
    until(lambda: "record/data/data.parquet" in written)
    first = trial(folder, 0)
    copy.update(first)
    until(lambda: "record/trials/t000.json" in written)
    written.clear()
    later = first.model_copy(update={"score": 0.5})
    folder.write_trial(later)
    copy.update(later)
    until(lambda: "record/trials/t000.json" in written)
    assert set(written) <= {"record/trials/t000.json", "driver.json"}
    copy.end(ENDED, {})


def test_a_storage_that_is_away_holds_nobody_up_and_gets_all_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = sweep(tmp_path / "here", tmp_path / "shared")
    away, write = threading.Event(), Storage.write

    def failing(self: Storage, name: str, content: bytes) -> None:
        if away.is_set():
            raise OSError("no route to host")
        write(self, name, content)

    monkeypatch.setattr(Storage, "write", failing)
    copy, record = RecordCopy(folder), Path(Storage.of(folder).root) / "record"
    away.set()
    with caplog.at_level(logging.WARNING, "lorasweep"):
        copy.begin({}, ())
        copy.update(trial(folder, 0))
        until(lambda: bool(caplog.messages))
        time.sleep(0.3)
    (message,) = caplog.messages
    assert message.endswith("(no route to host); the sweep goes on, and its record is copied there later")
    away.clear()
    until(lambda: (record / "trials" / "t000.json").is_file())
    away.set()
    copy.update(trial(folder, 1))
    copy.end(ENDED, {})
    assert f"copy it later with: {folder.command('publish')}" in caplog.messages[-1]
    away.clear()
    RecordCopy(folder).publish()
    assert (record / "trials" / "t001.json").is_file()


def test_a_sweep_that_runs_elsewhere_is_refused_and_one_whose_driver_has_died_goes_on(
    tmp_path: Path, elsewhere: Callable[[str], None]
) -> None:
    storage = tmp_path / "shared"
    here = sweep(tmp_path / "here", storage)
    copy = RecordCopy(here)
    copy.begin({}, ())
    copy.update(trial(here, 0))
    until(lambda: (Path(Storage.of(here).root) / "record" / "trials" / "t000.json").is_file())
    elsewhere("another")
    said: list[str] = []
    with pytest.raises(SettingsError, match=r"process \d+ on \S+ runs this sweep; wait for its end"):
        latest_folder(tmp_path / "there", "demo", str(storage), said.append)
    assert said[0].startswith("waiting for a sign of the process on")
    assert not (tmp_path / "there" / "sweeps" / "demo").exists()
    # As if it had been killed: nobody gives signs of life, and nobody has said that it has ended.
    copy.end(ENDED, {})
    driver = read_driver(Storage.of(here))
    assert driver is not None
    assert driver.ended
    Storage.of(here).write(
        "driver.json", driver.model_copy(update={"ended": False}).model_dump_json().encode()
    )
    began = time.monotonic()
    there = latest_folder(tmp_path / "there", "demo", str(storage))
    assert time.monotonic() - began >= restore.DEAD_SECONDS
    assert [record.id for record in there.trials()] == ["t000"]


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Interrupts of the main thread."""
    seen: list[bool] = []
    monkeypatch.setattr(record_copy._thread, "interrupt_main", lambda: seen.append(True))
    return seen


def test_a_driver_that_was_taken_for_dead_stops_and_copies_nothing_more(
    tmp_path: Path,
    elsewhere: Callable[[str], None],
    interrupts: list[bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = tmp_path / "shared"
    here = sweep(tmp_path / "here", storage)
    copy = RecordCopy(here)
    copy.begin({}, ())
    until(lambda: read_driver(Storage.of(here)) is not None)
    elsewhere("another")
    there_record = read_driver(Storage.of(here))
    assert there_record is not None
    other = there_record.model_copy(update={"run": "other", "host": "another"})
    Storage.of(here).write("driver.json", other.model_dump_json().encode())
    until(lambda: bool(interrupts))
    copy.update(trial(here, 0))
    copy.end(ENDED, {})
    assert interrupts == [True]
    assert caplog.messages == ["sweep demo: a process on another runs it now; this one stops"]
    root = Path(Storage.of(here).root)
    assert not (root / "record" / "trials" / "t000.json").exists()
    assert json.loads((root / "driver.json").read_text())["run"] == "other"


def test_a_folder_that_is_behind_its_storage_catches_up(
    tmp_path: Path, elsewhere: Callable[[str], None]
) -> None:
    """A sweep that went on elsewhere comes home."""
    storage = tmp_path / "shared"
    here = sweep(tmp_path / "here", storage)
    run(here, 2)
    elsewhere("another")
    there = latest_folder(tmp_path / "there", "demo", str(storage))
    run(there, 2)
    elsewhere("home")
    back = latest_folder(tmp_path / "here", "demo")
    assert [record.id for record in back.trials()] == ["t000", "t001", "t002", "t003"]
    assert numbers(back) == [0, 1, 2, 3]
    # Nothing happened elsewhere since: what is here stays.
    run(back, 1)
    assert len(latest_folder(tmp_path / "here", "demo").trials()) == 5


def test_a_storage_that_is_mounted_elsewhere_becomes_the_sweeps(tmp_path: Path) -> None:
    storage = tmp_path / "shared"
    here = sweep(tmp_path / "here", storage)
    root = Storage.of(here).root
    trial(here, 0, "completed", checkpoint=f"{root}/run-1/t000/checkpoint_000000", last_checkpoint=None)
    run(here, 0)
    moved = storage.rename(tmp_path / "mounted")
    for mlruns in (tmp_path / "here", tmp_path / "there"):
        folder = latest_folder(mlruns, "demo", str(moved))
        assert folder.config().resources.storage == str(moved)
        (record,) = folder.trials()
        assert record.checkpoint == f"{Storage.of(folder).root}/run-1/t000/checkpoint_000000"
        assert Storage.of(folder).root.startswith(str(moved))
    with pytest.raises(SettingsError, match="holds no checkpoints of sweep demo"):
        latest_folder(tmp_path / "here", "demo", str(tmp_path / "empty"))


def test_which_of_two_sweeps_of_one_name_has_to_be_said(tmp_path: Path) -> None:
    storage = tmp_path / "shared"
    folders = [sweep(tmp_path / mlruns, storage) for mlruns in ("a", "b")]
    for number, folder in enumerate(folders):
        run(folder, number)
    with pytest.raises(
        SettingsError, match=r"holds 2 sweeps of the name demo; say which of demo-\w+, demo-\w+"
    ):
        latest_folder(tmp_path / "there", "demo", str(storage))
    owner = Storage.of(folders[1]).owner
    assert owner is not None
    there = latest_folder(tmp_path / "there", owner.folder, str(storage))
    assert (there.name, len(there.trials())) == ("demo", 1)
    with pytest.raises(SettingsError, match="holds no record of a sweep other"):
        latest_folder(tmp_path / "there", "other", str(storage))
    assert not sweep_there(tmp_path / "there", "other", str(storage))
