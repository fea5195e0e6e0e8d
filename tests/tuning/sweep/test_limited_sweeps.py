"""Whole sweeps that their time or their patience ends, with real Ray, Optuna and MLflow on a tiny random BERT."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from whole_sweeps import RUN, check_study, lorasweep, start, wait_for

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult

pytestmark = pytest.mark.slow

# On a tiny model a full trial takes longer than the time that it is given.
ENDLESS = [
    *RUN,
    "--epochs",
    "4000",
    "--evaluations-per-epoch",
    "1",
    "--concurrency",
    "1",
    "--cpus-per-trial",
    "1",
]
MINUTES = 0.75


@pytest.fixture(scope="module")
def limited(place: Path) -> tuple[SweepFolder, float]:
    """A sweep in a given time whose driver was killed and that was resumed, and the seconds of both runs."""
    folder = SweepFolder(place / "mlruns", "limited")
    begun = time.monotonic()
    first = start(place, *ENDLESS, "--name", "limited", "--max-minutes", str(MINUTES))
    try:
        wait_for(lambda: folder.exists() and any(trial.evaluations for trial in folder.trials()), first)
    finally:
        first.kill()
        first.communicate()
    lorasweep(place, "resume", "limited")
    return folder, time.monotonic() - begun


def finished(folder: SweepFolder) -> SweepResult:
    """The result of a sweep that has a winner, all steps after its trials, and its copy in MLflow."""
    result = folder.result()
    assert result is not None
    assert (result.state, result.missing, result.published) == ("finished", {}, True)
    assert result.winner is not None
    return result


def test_a_sweep_in_a_given_time_ends_with_a_winner(limited: tuple[SweepFolder, float]) -> None:
    """Its minutes are those of both runs; a busy machine may take longer over what follows the trials."""
    folder, seconds = limited
    result, trials = finished(folder), folder.trials()
    assert result.stopped_by == "time"
    assert {trial.state for trial in trials} == {"stopped"}
    # Far from its full budget, and no rule had stopped it: the time has.
    assert "time" in {trial.stopped_by for trial in trials}
    assert all(trial.reached < 4000 for trial in trials)
    assert result.seconds < 60 * MINUTES + 60
    assert seconds > 60 * MINUTES / 2
    check_study(folder, trials)
    shown = json.loads(lorasweep(folder.mlruns.parent, "status", "limited", "--json")[0])
    assert (shown["stopped_by"], shown["trials_asked"]) == ("time", None)
    listed = lorasweep(folder.mlruns.parent, "status", "limited")[0]
    assert "stopped by the time limit" in listed


def test_patience_ends_an_extension(limited: tuple[SweepFolder, float]) -> None:
    """A sweep whose time was over goes on with more trials; two without a gain are enough."""
    folder, _ = limited
    before = len(folder.trials())
    more = ["--trials", str(before + 30), "--patience", "2", "--asha", "--extend"]
    del more
    out, _ = lorasweep(
        folder.mlruns.parent, "run", "--name", "limited", "--max-minutes", "30", "--patience", "1", "--extend"
    )
    assert "until 1 in a row bring nothing" in out
    result = finished(folder)
    assert result.stopped_by == "patience"
    assert len(folder.trials()) >= before
