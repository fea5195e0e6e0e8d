"""What the end of a sweep says can be done next."""

from __future__ import annotations

from pathlib import Path

import pytest

import lorasweep
from lorasweep.command_line.main import sweep_steps
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import Confirmed, SweepResult
from lorasweep.tuning.record.trial_records import TrialRecord


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A finished sweep whose second trial is within noise of the winner."""
    folder = SweepFolder(tmp_path, "demo")
    folder.create(SweepConfig(name="demo"))
    for number in range(4):
        folder.write_trial(trial(number))
    folder.write_result(SweepResult(state="finished", metric="accuracy", near=("t001",)))
    return folder


def trial(number: int, checkpoint: str | None = "c") -> TrialRecord:
    """A trial that has ended, the first the best."""
    score = 0.9 - number / 100
    return TrialRecord(
        id=f"t{number:03d}", number=number, state="completed", score=score, checkpoint=checkpoint
    )


def confirming(folder: SweepFolder) -> list[str]:
    """The commands that confirm."""
    steps = sweep_steps(lorasweep.open("demo", mlruns=folder.mlruns))
    return [command for command, _ in steps if "--confirm" in command]


def test_the_best_two_within_noise_are_to_be_confirmed(folder: SweepFolder) -> None:
    """As many of the best as have checkpoints, three at most."""
    assert confirming(folder) == [f"lorasweep resume demo --confirm 3x3 --mlruns {folder.mlruns}"]
    folder.write_trial(trial(2, checkpoint=None))
    assert confirming(folder) == [f"lorasweep resume demo --confirm 2x3 --mlruns {folder.mlruns}"]
    folder.write_trial(trial(1, checkpoint=None))
    assert confirming(folder) == []


def test_what_is_confirmed_or_told_apart_need_not_be(folder: SweepFolder) -> None:
    result = folder.result()
    assert result is not None
    confirmed = (Confirmed(id="t000", scores={"1": 0.9}, mean=0.9, spread=0.0),)
    folder.write_result(result.model_copy(update={"confirmed": confirmed}))
    assert confirming(folder) == []
    folder.write_result(result.model_copy(update={"near": ()}))
    assert confirming(folder) == []
