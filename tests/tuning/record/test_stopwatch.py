"""How long a sweep has run, whatever ended its runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from lorasweep.tuning.record import stopwatch as stopwatch_module
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.stopwatch import RUNS_FILE, read_runs, stopwatch
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import counts_text

RUN = """
import sys, time
from pathlib import Path
from lorasweep.tuning.record import stopwatch
stopwatch.WRITE_SECONDS = 0.05
with stopwatch.stopwatch(Path(sys.argv[1])):
    print("runs", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_loses_no_more_than_a_moment(folder: SweepFolder) -> None:
    """And the next run counts on from there."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        time.sleep(0.5)
        process.kill()
    killed = folder.seconds()
    assert killed >= 0.4
    with stopwatch(folder.path) as watch:
        time.sleep(0.1)
        assert watch.seconds() >= killed + 0.1
        watch.stop()
        stopped = folder.seconds()
    assert folder.seconds() == stopped == pytest.approx(killed + 0.1, abs=0.1 + watch.seconds() - stopped)
    first, second = read_runs(folder.path)
    assert first["started"] < second["started"]


def test_what_an_older_version_wrote_counts(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result has the time of all runs; a file that cannot be read is no reason to refuse the sweep."""
    monkeypatch.setattr(stopwatch_module, "WRITE_SECONDS", 60.0)
    (folder.path / RUNS_FILE).write_text("half a fi")
    assert folder.seconds() == 0
    with stopwatch(folder.path, 100.0) as watch:
        assert watch.seconds() >= 100
    with stopwatch(folder.path, 9000.0) as watch:
        assert 100 <= watch.seconds() < 9000


def test_a_sweep_that_does_not_run_is_told_as_it_is(folder: SweepFolder) -> None:
    """Its time without a result, and trials that are to go on instead of running ones."""
    folder.write_trial(TrialRecord(id="t000", number=0))
    folder.write_trial(TrialRecord(id="t001", number=1, state="completed"))
    (folder.path / RUNS_FILE).write_text(json.dumps([{"started": 1.0, "seconds": 40.0}]))
    with folder.lock():
        assert [trial.state for trial in SweepRecord(folder).trials] == ["running", "completed"]
    record = SweepRecord(folder)
    assert [trial.state for trial in record.trials] == ["interrupted", "completed"]
    assert counts_text(record.trials, "ASHA") == "1 completed, 1 to go on"
    assert (record.outcome().state, record.outcome().seconds) == ("interrupted", 40.0)
    # Killed in its second run, and then finished: the time until the winner counts.
    folder.write_result(SweepResult(state="interrupted", metric="accuracy", seconds=30.0))
    assert SweepRecord(folder).outcome().seconds == 40.0
    folder.write_result(SweepResult(state="finished", metric="accuracy", seconds=39.0))
    assert SweepRecord(folder).outcome().seconds == 39.0
