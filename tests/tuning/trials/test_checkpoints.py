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
from tiny_trials import hyperparameters, loaded, start

from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import NOT_FINITE
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import TrialRecord
from lorasweep.tuning.trials.checkpoints import prune, storage_of, without_lost, write_checkpoint


@pytest.fixture(params=["own folder", "shared folder", "uri"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SweepFolder, str | None, Path]:
    """A sweep's folder, its storage, and where its runs lie."""
    folder = SweepFolder(tmp_path / "mlruns", "demo")
    folder.create(SweepConfig(name="demo"))
    shared = tmp_path / "shared"
    storage = {"own folder": None, "shared folder": str(shared), "uri": f"file://{shared}"}[request.param]
    return folder, storage, folder.ray.resolve() if storage is None else shared / "demo"


def make(root: Path, run: int, trial: str, *numbers: int) -> list[str]:
    """Checkpoint folders of a trial in one run of the sweep."""
    paths = [root / f"run-{run}" / trial / f"checkpoint_{number:06d}" for number in numbers]
    for path in paths:
        path.mkdir(parents=True)
        (path / "trial.json").write_text("{}")
    return [str(path) for path in paths]


def record(number: int, state: str, best: str | None, last: str | None, **more: Any) -> TrialRecord:
    """A trial's record."""
    entries = {"id": f"t{number:03d}", "number": number, "state": state}
    return TrialRecord.model_validate(entries | {"checkpoint": best, "last_checkpoint": last} | more)


def test_what_can_still_win_or_go_on_stays(place: tuple[SweepFolder, str | None, Path]) -> None:
    folder, storage, root = place
    contender, loser = make(root, 10, "t000", 0, 1), make(root, 10, "t001", 0, 1)
    # Trial 2 runs, and has checkpoints of an earlier run; 9 sorts before 10 as a number.
    old, new = make(root, 9, "t002", 3, 4, 5), make(root, 10, "t002", 6, 7, 8)
    resumed = make(root, 9, "t003", 0, 1)
    (root / "run-10" / "t001" / "result.json").write_text("{}")
    trials = [
        record(0, "completed", contender[0], contender[1]),
        record(1, "stopped", loser[0], loser[1]),
        record(2, "running", old[1], new[2]),
        record(3, "completed", resumed[0], resumed[1]),
    ]
    changed = prune(folder, trials, {"t000", "t003"}, storage)
    assert {trial.id: (trial.checkpoint, trial.last_checkpoint) for trial in changed} == {
        "t000": (contender[0], None),
        "t001": (None, None),
        "t003": (resumed[0], None),
    }
    left = {str(path) for path in root.glob("run-*/*/checkpoint_*")}
    assert left == {contender[0], old[1], *new, resumed[0]}
    assert (root / "run-10" / "t001" / "result.json").is_file()
    # Once more changes nothing; a contender that is beaten goes too.
    after = [*changed, trials[2]]
    assert prune(folder, after, {"t000", "t003"}, storage) == []
    assert [trial.id for trial in prune(folder, after, {"t000"}, storage)] == ["t003"]
    assert not Path(resumed[0]).exists()


def test_a_sweep_without_runs_has_nothing_to_remove(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "demo")
    assert prune(folder, [], set(), None) == []
    assert storage_of(folder, None)[1] == str((tmp_path / "sweeps" / "demo" / "ray").resolve())


def test_what_broke_can_be_tried_again_from_its_last_checkpoint(
    place: tuple[SweepFolder, str | None, Path],
) -> None:
    """Not what diverged: it would do so again. A checkpoint that somebody removed is not gone on from."""
    folder, storage, root = place
    broke, diverged = make(root, 1, "t000", 0, 1), make(root, 1, "t001", 0, 1)
    trials = [
        record(0, "failed", broke[0], broke[1], error="its process died"),
        record(1, "failed", diverged[0], diverged[1], error=f"{NOT_FINITE} at step 3"),
    ]
    kept, gone = prune(folder, trials, set(), storage)
    assert (kept.checkpoint, kept.last_checkpoint, gone.last_checkpoint) == (None, broke[1], None)
    assert {str(path) for path in root.glob("run-*/*/checkpoint_*")} == {broke[1]}
    assert prune(folder, [kept, gone], set(), storage) == []
    assert without_lost(folder, kept, storage) is kept
    shutil.rmtree(broke[1])
    assert without_lost(folder, kept, storage).last_checkpoint is None
    assert without_lost(folder, gone, storage) is gone


def test_a_checkpoint_says_what_its_logits_were_computed_in(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """The plan may have been made on another machine, and the trial may go on elsewhere."""
    state = start(loaded(tiny_base("bert")), hyperparameters(), "bf16")
    evaluation = SimpleNamespace(logits=np.zeros((3, 2), dtype=np.float32))
    best, objective = Best("accuracy", 0.5, 2), Best("loss", 1.5, 3)
    write_checkpoint(state, evaluation, best, objective, tmp_path)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "score": 0.5,
        "rung": 2,
        "objective": 1.5,
        "precision": "bf16",
        "device": "cpu",
    }
