"""Whole sweeps that their time or their patience ends, with real Ray, Optuna and MLflow on a tiny random BERT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from whole_sweeps import RUN, check_study, kill_when, lorasweep

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.stopwatch import read_runs

pytestmark = pytest.mark.slow

ALONE = [*RUN, "--evaluations-per-epoch", "1", "--concurrency", "1", "--cpus-per-trial", "1"]
MINUTES = 1.0
# A full trial takes far longer than that.
EPOCHS = 9000


def finished(folder: SweepFolder) -> SweepResult:
    """The result of a sweep that has a winner, all steps after its trials, and its copy in MLflow."""
    result = folder.result()
    assert result is not None
    assert (result.state, result.missing, result.published) == ("finished", {}, True)
    assert result.winner is not None
    return result


def test_a_sweep_in_a_given_time_ends_with_a_winner(place: Path) -> None:
    """Its minutes are those of both runs, before its driver was killed and after."""
    folder = SweepFolder(place / "mlruns", "timed")
    begun = [*ALONE, "--epochs", str(EPOCHS), "--name", "timed", "--max-minutes", str(MINUTES)]
    kill_when(place, begun, folder, lambda: any(trial.evaluations for trial in folder.trials()))
    lorasweep(place, "resume", "timed")
    result, trials = finished(folder), folder.trials()
    assert result.stopped_by == "time"
    assert {trial.state for trial in trials} == {"stopped"}
    assert trials[-1].stopped_by == "time"
    assert 1 <= trials[-1].reached < EPOCHS
    # A busy machine may take long over its start, and over what follows the trials; these end in time.
    before, now = read_runs(folder.path)
    ended = before["seconds"] + (trials[-1].ended or 0.0) - now["started"]
    assert ended < max(60 * MINUTES, before["seconds"]) + 20
    check_study(folder, trials)
    shown = json.loads(lorasweep(place, "status", "timed", "--json")[0])
    assert (shown["stopped_by"], shown["trials_asked"]) == ("time", None)
    assert "stopped by the time limit" in lorasweep(place, "status", "timed")[0]


def test_patience_ends_a_sweep_which_may_go_on(place: Path) -> None:
    """Six validation rows tell nothing apart, so two trials without a gain come soon. A number is run in full."""
    folder = SweepFolder(place / "mlruns", "patient")
    out, _ = lorasweep(
        place, *ALONE, "--epochs", "1", "--name", "patient", "--max-minutes", "60", "--patience", "2"
    )
    assert "until 2 in a row bring nothing beyond noise" in out
    assert finished(folder).stopped_by == "patience"
    trials = folder.trials()
    assert 3 <= len(trials) < 20
    more = len(trials) + 1
    lorasweep(place, "run", "--name", "patient", "--trials", str(more), "--extend")
    assert finished(folder).stopped_by is None
    assert len(folder.trials()) == more
    check_study(folder, folder.trials())
