"""A sweep's folder: whole files, one driver, and what becomes of it when the driver dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, find_sweep, list_sweeps
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials

HOLD_LOCK = """
import sys, time
from pathlib import Path
from lorasweep.tuning.record.folder import SweepFolder
with SweepFolder(Path(sys.argv[1]), "demo").lock():
    print("held", flush=True)
    time.sleep(60)
"""


def record(number: int, **fields: object) -> TrialRecord:
    """A trial's record."""
    return TrialRecord.model_validate({"id": f"t{number:03d}", "number": number, **fields})


def test_what_is_written_is_read_back(folder: SweepFolder) -> None:
    """Configuration, plan, trials by number, result; and nothing else is left in the folder."""
    trials = [
        record(n, evaluations=[{"rung": 1, "score": 0.1 * n}], searched=["rank"]) for n in (11, 2, 1000)
    ]
    for trial in trials:
        folder.write_trial(trial)
    assert folder.trials() == sorted(trials, key=lambda trial: trial.number)
    assert folder.result() is None
    assert folder.plan() == {}
    result = SweepResult(state="failed", metric="loss", error="é")
    folder.write_result(result)
    folder.write_plan({"a": [1, None]})
    assert folder.result() == result
    assert folder.plan() == {"a": [1, None]}
    assert folder.config() == SweepConfig(name="demo")
    files = {path.name for path in folder.path.rglob("*") if path.is_file()}
    assert files == {"config.yaml", "plan.json", "result.json", "t002.json", "t011.json", "t1000.json"}


def test_a_reader_never_sees_half_a_record(folder: SweepFolder) -> None:
    """Files are replaced whole while somebody reads them."""
    evaluations = tuple({"rung": rung, "text": "x" * 3000} for rung in range(20))
    folder.write_trial(record(0, evaluations=evaluations))
    done = threading.Event()
    lengths: set[int] = set()
    broken: list[Exception] = []

    def read() -> None:
        while not done.is_set():
            try:
                lengths.update(len(trial.evaluations) for trial in folder.trials())
            except SettingsError as error:
                broken.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for count in range(60):
        folder.write_trial(record(0, evaluations=evaluations[: count % 20]))
    done.set()
    reader.join()
    assert not broken
    assert len(lengths) > 1


def test_the_lock_is_held_by_one_process_and_by_none_after_its_death(folder: SweepFolder) -> None:
    """`running` while another process drives the sweep, `interrupted` after `kill -9` of it."""
    assert folder.state() == "interrupted"
    command = [sys.executable, "-c", HOLD_LOCK, str(folder.mlruns)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            assert folder.state() == "running"
            with pytest.raises(SettingsError, match=r"another process is running it"), folder.lock():
                pass
            assert (folder.path / "lock").read_text() == f"{process.pid}\n", "the holder can be found"
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert folder.state() == "interrupted"
    with folder.lock():
        assert folder.state() == "running"
    folder.write_result(SweepResult(state="finished", metric="accuracy"))
    assert folder.state() == "finished"


def test_asking_for_the_state_disturbs_nobody(folder: SweepFolder) -> None:
    """Those who ask at the same moment do not take each other for the sweep, nor keep a new one from starting."""
    with folder.lock():
        pass
    states: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            states.append(folder.state())

    askers = [threading.Thread(target=ask) for _ in range(3)]
    try:
        for asker in askers:
            asker.start()
        deadline = time.monotonic() + 30
        while len(states) < 300 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert set(states) == {"interrupted"}
        for _ in range(5):
            with folder.lock():
                assert folder.state() == "running"
    finally:
        done.set()
        for asker in askers:
            asker.join()


@pytest.mark.parametrize(
    ("pid", "state"), [(os.getpid(), "running"), (2**22 + 1, "interrupted")], ids=["alive", "dead"]
)
def test_the_state_of_a_sweep_that_may_only_be_read(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, pid: int, state: str
) -> None:
    """Somebody else's folder: the lock cannot be taken, so its owner's process is looked for."""
    (folder.path / "lock").write_text(f"{pid}\n")

    def refuse(self: FileLock, **arguments: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert folder.state() == state


def test_a_name_in_use_is_refused_and_a_removed_one_is_free(folder: SweepFolder) -> None:
    """A second sweep never writes into the first one's folder."""
    folder.write_trial(record(0))
    with pytest.raises(SettingsError, match=r"in use .*--name.*lorasweep resume demo"):
        folder.create(SweepConfig(name="demo", keep=1))
    assert folder.config().keep == 3
    shutil.rmtree(folder.path)
    folder.create(SweepConfig(name="demo", keep=1))
    assert folder.trials() == []


def test_a_configuration_that_was_changed(folder: SweepFolder) -> None:
    """A name that YAML would take for a number is read back; a key that stands twice is refused."""
    config = SweepConfig(name="1e4")
    folder.write_config(config)
    assert folder.config() == config
    with (folder.path / "config.yaml").open("a") as file:
        file.write("name: other\n")
    with pytest.raises(SettingsError, match=r"config\.yaml line \d+: .*name stands twice.*; restore it"):
        folder.config()


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """Until it has everything nobody sees it, and an error on the way leaves nothing."""
    folder = SweepFolder(tmp_path, "demo")

    def broken() -> None:
        with folder.making(SweepConfig(name="demo")) as making:
            making.write_plan({"a": 1})
            assert list_sweeps(tmp_path) == []
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert list((tmp_path / "sweeps").iterdir()) == []
    with folder.making(SweepConfig(name="demo")) as making:
        making.write_plan({"a": 1})
    assert [sweep.name for sweep in list_sweeps(tmp_path)] == ["demo"]
    assert folder.plan() == {"a": 1}
    # Another process made one of this name in the meantime: its files stay.
    other = SweepFolder(tmp_path, "late")
    with pytest.raises(SettingsError, match="late"), other.making(SweepConfig(name="late")):
        other.create(SweepConfig(name="late", keep=7))
    assert other.config().keep == 7
    assert {path.name for path in (tmp_path / "sweeps").iterdir()} == {"demo", "late"}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "mlruns").write_text("")
    with pytest.raises(SettingsError, match=r"cannot be written .*--mlruns"):
        SweepFolder(tmp_path / "mlruns", "demo").create(SweepConfig(name="demo"))


def test_sweeps_are_found(tmp_path: Path) -> None:
    """By name, or the newest; a folder without a configuration is none; refusals list what there is."""
    with pytest.raises(SettingsError, match=r"no sweeps in .*lorasweep run"):
        find_sweep(tmp_path, None)
    for age, name in ((30, "old"), (10, "new"), (20, "middle")):
        folder = SweepFolder(tmp_path, name)
        folder.create(SweepConfig(name=name))
        os.utime(folder.path / "config.yaml", (2_000_000_000 - age, 2_000_000_000 - age))
    (tmp_path / "sweeps" / "empty").mkdir()
    assert [sweep.name for sweep in list_sweeps(tmp_path)] == ["new", "middle", "old"]
    assert find_sweep(tmp_path, None).name == "new"
    assert find_sweep(tmp_path, "old").name == "old"
    for name in ("other", "empty", "../sweeps/old", "", "old/"):
        with pytest.raises(SettingsError, match=r"not known .*there are: new, middle, old"):
            find_sweep(tmp_path, name)


def test_a_broken_record_is_named(folder: SweepFolder) -> None:
    """One line with the file; a later version's fields are let through."""
    path = folder.path / "trials" / "t003.json"
    path.write_text('{"id": "t003", "number": 3, "of_a_later_version": 1}')
    assert folder.trials()[0].number == 3
    path.write_text('{"id": "t003"')
    with pytest.raises(SettingsError, match=r"t003\.json: not a readable record") as refused:
        folder.trials()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["name: [", "- a", "name: demo\nkeep: no\n", ""])
def test_a_broken_configuration_is_named(text: str, folder: SweepFolder) -> None:
    """One line with the file, whatever somebody did to it."""
    (folder.path / "config.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"config\.yaml(?: line 1)?: ") as refused:
        folder.config()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["2e3", "1_000", "0x1F", "true", "null", "2024-05-01"])
def test_a_name_that_yaml_would_read_as_something_else(name: str, tmp_path: Path) -> None:
    """It comes back as the name that it was."""
    folder = SweepFolder(tmp_path, name)
    folder.create(SweepConfig(name=name))
    assert folder.config().name == name


def test_of_equal_trials_the_smaller_adapter_then_the_earlier_is_better() -> None:
    """Trials without a score are left out; the loss is ranked the other way."""
    trials = [
        record(0, score=0.5, trainable_parameters=100),
        record(1, score=0.9, trainable_parameters=300),
        record(2, score=0.9, trainable_parameters=200),
        record(3, score=0.9, trainable_parameters=200),
        record(4, state="failed"),
        record(5, score=0.0, trainable_parameters=1),
    ]
    assert [trial.number for trial in rank_trials(trials[::-1], "macro_f1")] == [2, 3, 1, 0, 5]
    assert [trial.number for trial in rank_trials(trials[::-1], "loss")] == [5, 0, 2, 3, 1]
