"""Checkpoints on the disk: those that can still win or be gone on from stay, and no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_trials import hyperparameters, loaded, start

from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import NOT_FINITE
from lorasweep.training.scores.outcomes import Outcomes
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import OUTCOMES_FILE, outcome_bytes, read_outcomes
from lorasweep.tuning.record.reported import PROBE_FILE
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.storage.storage import Storage
from lorasweep.tuning.trials.checkpoints import (
    keep_outcomes,
    prune,
    remove_left,
    remove_replaced,
    without_lost,
    write_checkpoint,
)

OUTCOMES = Outcomes(np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([0.1, 0.2, 0.9], dtype=np.float32), 3)


@pytest.fixture(params=["own folder", "shared folder", "link", "uri"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The storage of a sweep."""
    shared, link = tmp_path / "shared", tmp_path / "link"
    shared.mkdir()
    link.symlink_to(shared)
    storages = {"own folder": None, "shared folder": str(shared), "link": str(link), "uri": shared.as_uri()}
    named = storages[request.param]
    folder = SweepFolder(tmp_path / "mlruns", "demo")
    folder.create(SweepConfig.model_validate({"name": "demo", "resources": {"storage": named}}))
    return Storage.claim(folder, new=True)


def make(storage: Storage, run: int, trial: str, *numbers: int) -> list[str]:
    """Checkpoint folders of a trial in one run of the sweep."""
    paths = [Path(storage.root) / f"run-{run}" / trial / f"checkpoint_{number:06d}" for number in numbers]
    for path in paths:
        path.mkdir(parents=True)
        (path / "trial.json").write_text("{}")
    return [str(path) for path in paths]


def record(number: int, state: str, best: str | None, last: str | None, **more: Any) -> TrialRecord:
    """A trial's record."""
    entries = {"id": f"t{number:03d}", "number": number, "state": state}
    return TrialRecord.model_validate(entries | {"checkpoint": best, "last_checkpoint": last} | more)


def left(storage: Storage) -> set[str]:
    """The checkpoints that are there."""
    return {str(path) for path in Path(storage.root).glob("run-*/*/checkpoint_*")}


def test_what_can_still_win_or_go_on_stays(storage: Storage) -> None:
    contender, loser = make(storage, 10, "t000", 0, 1), make(storage, 10, "t001", 0, 1)
    # Trial 2 runs, and has checkpoints of an earlier run.
    old, new = make(storage, 9, "t002", 3), make(storage, 10, "t002", 6, 7)
    resumed = make(storage, 9, "t003", 0, 1)
    (Path(storage.root) / "run-10" / "t001" / "result.json").write_text("{}")
    trials = [
        record(0, "completed", contender[0], contender[1]),
        record(1, "stopped", loser[0], loser[1]),
        record(2, "running", old[0], new[1]),
        record(3, "completed", resumed[0], resumed[1]),
    ]
    changed = prune(storage, trials, {"t000", "t003"})
    assert {trial.id: (trial.checkpoint, trial.last_checkpoint) for trial in changed} == {
        "t000": (contender[0], None),
        "t001": (None, None),
        "t003": (resumed[0], None),
    }
    assert left(storage) == {contender[0], old[0], *new, resumed[0]}
    assert (Path(storage.root) / "run-10" / "t001" / "result.json").is_file()
    # Once more changes nothing; a contender that is beaten goes too.
    after = [*changed, trials[2]]
    assert prune(storage, after, {"t000", "t003"}) == []
    assert [trial.id for trial in prune(storage, after, {"t000"})] == ["t003"]
    assert not Path(resumed[0]).exists()


def test_a_running_trial_keeps_its_best_and_its_last(storage: Storage) -> None:
    """Also across runs: what its record no longer names goes, and nothing else."""
    old, new = make(storage, 1, "t000", 3, 4), make(storage, 2, "t000", 0, 1)
    other = make(storage, 2, "t001", 0)
    begun, improved = record(0, "running", old[0], old[1]), record(0, "running", old[0], new[0])
    remove_replaced(storage, begun, improved)
    assert left(storage) == {old[0], *new, *other}
    remove_replaced(storage, improved, record(0, "running", new[1], new[1]))
    assert left(storage) == {new[1], *other}


def test_what_no_record_names_is_removed(storage: Storage) -> None:
    """As what a killed process has left; not what else lies there."""
    kept, broken = make(storage, 1, "t000", 0, 1), make(storage, 2, "t001", 0)
    (Path(broken[0]) / "trial.json").unlink()
    (Path(storage.root) / "run-1" / "t000" / "result.json").write_text("{}")
    remove_left(storage, [record(0, "running", kept[0], None)])
    assert left(storage) == {kept[0]}
    assert (Path(storage.root) / "run-1" / "t000" / "result.json").is_file()
    remove_left(Storage(storage.filesystem, f"{storage.root}/none", "none"), [])


def test_what_broke_can_be_tried_again_from_its_last_checkpoint(storage: Storage) -> None:
    """Not what diverged: it would do so again. A checkpoint that somebody removed is not gone on from."""
    broke, diverged = make(storage, 1, "t000", 0, 1), make(storage, 1, "t001", 0, 1)
    trials = [
        record(0, "failed", broke[0], broke[1], error="its process died"),
        record(1, "failed", diverged[0], diverged[1], error=f"{NOT_FINITE} at step 3"),
    ]
    kept, gone = prune(storage, trials, set())
    assert (kept.checkpoint, kept.last_checkpoint, gone.last_checkpoint) == (None, broke[1], None)
    assert left(storage) == {broke[1]}
    assert prune(storage, [kept, gone], set()) == []
    assert without_lost(storage, kept) is kept
    shutil.rmtree(broke[1])
    assert without_lost(storage, kept).last_checkpoint is None
    assert without_lost(storage, gone) is gone


@pytest.mark.parametrize("older", [False, True])
def test_outcomes_outlive_their_checkpoint(storage: Storage, tmp_path: Path, older: bool) -> None:
    """Checkpoints of older versions have them in a file of their own; what has none is let be."""
    folder = SweepFolder(tmp_path / "mlruns", "demo")
    best, none = make(storage, 1, "t000", 1)[0], make(storage, 1, "t001", 1)[0]
    logits = np.zeros((2, 2), dtype=np.float32)
    if older:
        save_file({"logits": logits}, Path(best) / PROBE_FILE)
        (Path(best) / OUTCOMES_FILE).write_bytes(outcome_bytes(OUTCOMES, 4))
    else:
        (Path(best) / PROBE_FILE).write_bytes(outcome_bytes(OUTCOMES, 4, logits))
    for number, path in enumerate((best, none, None)):
        keep_outcomes(folder, storage, record(number, "completed", path, None))
    found = read_outcomes(folder.outcomes("t000"), 4)
    assert found is not None
    assert found.predicted.tolist() == OUTCOMES.predicted.tolist()
    assert [path.name for path in folder.outcomes("t000").parent.iterdir()] == ["t000.safetensors"]


def test_a_checkpoint_says_what_its_logits_were_computed_in(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """The plan may have been made on another machine, and the trial may go on elsewhere."""
    state = start(loaded(tiny_base("bert")), hyperparameters(), "bf16")
    evaluation = SimpleNamespace(logits=np.zeros((3, 2), dtype=np.float32), rung=3)
    best, objective = Best("accuracy", 0.5, 2), Best("loss", 1.5, 3)
    write_checkpoint(state, evaluation, OUTCOMES, best, objective, tmp_path)  # type: ignore[arg-type]
    found = read_outcomes(tmp_path / PROBE_FILE, 3)
    assert found is not None
    assert found.losses.tolist() == OUTCOMES.losses.tolist()
    assert load_file(tmp_path / PROBE_FILE)["logits"].shape == (3, 2)
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "score": 0.5,
        "rung": 2,
        "objective": 1.5,
        "precision": "bf16",
        "device": "cpu",
    }
