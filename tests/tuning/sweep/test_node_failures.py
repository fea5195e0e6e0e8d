"""Whole sweeps whose nodes or storage break in between, on a real cluster: Ray's own nodes, all on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from whole_sweeps import check_study, ending, new_interpreter, wait_for

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import TrialRecord

MODEL = "acme/tiny"
# The command with short pauses: three tries more, the last after six seconds.
COMMAND = """
import sys
import lorasweep.tuning.trials.node_watch as watch
watch.PAUSES = (1.0, 2.0, 6.0)
from lorasweep.command_line.main import main
sys.argv[0] = "lorasweep"
main()
"""
ARGUMENTS = ("--data", "rows.csv", "--precision", "fp32", "--max-length", "16", "--gpus-per-trial", "0")
NOISE = re.compile(r"Traceback|\(raylet|File \"|WARNING|ERROR")


def hub_cache(base: Path, home: Path) -> Path:
    """A home of the hub's libraries whose cache holds a model."""
    model = home / "hub" / f"models--{MODEL.replace('/', '--')}"
    shutil.copytree(base, model / "snapshots" / "abc123")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc123")
    return home


@pytest.fixture(scope="module")
def homes(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each node, and of the driver: in its own one, a base model."""
    root = tmp_path_factory.mktemp("homes")
    return {name: hub_cache(tiny_base("bert"), root / name) for name in ("driver", "first", "second")}


@pytest.fixture(scope="module")
def address(homes: dict[str, Path]) -> Iterator[str]:
    """Of a head without cores, and two nodes of one core."""
    cluster = Cluster()
    cluster.add_node(num_cpus=0)
    for name in ("first", "second"):
        home = {"HF_HOME": str(homes[name]), "HF_HUB_OFFLINE": "1"}
        cluster.add_node(num_cpus=1, env_vars={**os.environ, **home})
    yield cluster.address
    cluster.shutdown()


def start(place: Path, home: Path, *arguments: str) -> subprocess.Popen[str]:
    return new_interpreter(place, ["-c", COMMAND, *arguments], HF_HOME=str(home), HF_HUB_OFFLINE="1")


def end(process: subprocess.Popen[str], code: int) -> str:
    """What it printed, all of it meant for people."""
    with ending(process):
        out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    assert not NOISE.search(out + err), out + err
    return out + err


def notes(folder: SweepFolder) -> list[str]:
    return [note for trial in folder.trials() for note in trial.notes]


def check_whole(trials: list[TrialRecord], count: int, rungs: int) -> None:
    assert [trial.state for trial in trials] == ["completed"] * count
    for trial in trials:
        assert [evaluation.rung for evaluation in trial.evaluations] == list(range(1, rungs + 1))


@pytest.mark.slow
def test_a_node_that_loses_its_base_model_costs_no_trial(
    address: str, homes: dict[str, Path], place: Path
) -> None:
    """Before the sweep it is refused by name. Once trials run, these go to the other node."""
    given = ("run", *ARGUMENTS, "--base-model", MODEL, "--address", address, "--storage", str(place / "s"))
    given += ("--trials", "4", "--epochs", "2", "--no-asha", "--max-failures", "0", "--name", "nodes")
    gone, bad = homes["second"].with_name("gone"), homes["second"]
    folder = SweepFolder(place / "mlruns", "nodes")
    bad.rename(gone)
    told = " ".join(end(start(place, homes["driver"], *given, "--dry-run"), 2).split())
    assert f"--address {address}: 1 of 2 nodes cannot train: " in told
    assert f"base model {MODEL} cannot be read there (" in told
    assert not folder.path.exists()
    gone.rename(bad)
    process = start(place, homes["driver"], *given)
    wait_for(folder.path.exists, process)
    bad.rename(gone)
    try:
        out = end(process, 0)
    finally:
        gone.rename(bad)
    trials = folder.trials()
    check_whole(trials, 4, 4)
    check_study(folder, trials)
    told_of_node = [note for note in notes(folder) if note.startswith("failure of node ")]
    assert told_of_node
    assert all(f"base model {MODEL} cannot be read" in note for note in told_of_node)
    assert any(note.endswith("; tried on another node after 1 s") for note in told_of_node)
    assert "failure of node " in out
    assert all(trial.ran_on is not None and trial.ran_on.packages for trial in trials)


@pytest.mark.slow
def test_a_storage_that_is_away_for_a_while_costs_no_trial(
    address: str, homes: dict[str, Path], place: Path
) -> None:
    """Away for seconds, trials wait for it. Away for longer, the sweep stops, and goes on when it is back."""
    storage, away = place / "shared", place / "away"
    folder = SweepFolder(place / "mlruns", "storage")
    given = ("run", *ARGUMENTS, "--base-model", MODEL, "--address", address, "--storage", str(storage))
    given += ("--trials", "2", "--epochs", "12", "--no-asha", "--max-failures", "0", "--name", "storage")
    process = start(place, homes["driver"], *given)

    def take_away() -> None:
        storage.rename(away)
        storage.write_text("not a folder")

    def give_back() -> None:
        storage.unlink()
        away.rename(storage)

    def begun() -> bool:
        return any(len(trial.evaluations) > 2 for trial in folder.trials())

    wait_for(begun, process)
    take_away()
    wait_for(lambda: bool(notes(folder)), process)
    give_back()
    before = max(len(trial.evaluations) for trial in folder.trials())
    wait_for(lambda: any(len(trial.evaluations) > before + 1 for trial in folder.trials()), process)
    assert {trial.state for trial in folder.trials()} <= {"running", "completed"}
    take_away()
    told = " ".join(end(process, 2).split())
    assert re.search(r"lorasweep: sweep storage: failure of node .*storage.*; nothing is lost\.", told), told
    assert told.endswith("lorasweep resume storage")
    result = folder.result()
    assert result is not None
    assert (result.state, {trial.state for trial in folder.trials()}) == ("interrupted", {"running"})
    give_back()
    end(start(place, homes["driver"], "resume", "storage"), 0)
    trials = folder.trials()
    check_whole(trials, 2, 24)
    check_study(folder, trials)
    assert not any("began anew" in note for note in notes(folder))
