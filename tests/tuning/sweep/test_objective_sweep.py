"""A sweep from before trials were judged by an objective, killed and resumed. One of today is in `test_resume.py`."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from whole_sweeps import RUN, check_study, kill_when, lorasweep

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.study import open_study

pytestmark = pytest.mark.slow

RUNGS = 12
# As many as the space has starts: of that time's sweeps none waited for an extension.
ARGUMENTS = [
    "--trials",
    "6",
    "--epochs",
    "6",
    "--concurrency",
    "2",
    "--cpus-per-trial",
    "1",
    "--no-baselines",
]


def evaluations(records: list[TrialRecord]) -> dict[str, list[tuple[float | None, float | None]]]:
    """What was measured at each rung."""
    return {record.id: [(entry.accuracy, entry.loss) for entry in record.evaluations] for record in records}


def test_a_sweep_from_before_there_was_an_objective_goes_on_by_its_metric(place: Path) -> None:
    folder = SweepFolder(place / "mlruns", "older")
    arguments = [*RUN, *ARGUMENTS, "--name", "older", "--objective", "accuracy"]
    kill_when(place, arguments, folder, lambda: any(3 <= t.reached < RUNGS for t in folder.trials()))
    assert any(trial.unfinished for trial in folder.trials())
    config = yaml.safe_load((folder.path / "config.yaml").read_text())
    for name in ("objective", "proxy", "finalists", "max_minutes", "patience"):
        del config["search"][name]
    (folder.path / "config.yaml").write_text(yaml.safe_dump(config))
    plan = json.loads((folder.path / "plan.json").read_text())
    del plan["objective"]
    (folder.path / "plan.json").write_text(json.dumps(plan))
    for path in (folder.path / "trials").glob("t*.json"):
        record = json.loads(path.read_text())
        del record["start"], record["finalist_of"]
        for entry in record["evaluations"]:
            del entry["objective"], entry["standard_error"]
        path.write_text(json.dumps(record))
    for path in folder.ray.glob("run-*/*/checkpoint_*/best.json"):
        best = json.loads(path.read_text())
        del best["objective"]
        path.write_text(json.dumps(best))
    with sqlite3.connect(folder.path / "study.db") as database:
        for table in ("study_user_attributes", "trial_user_attributes"):
            database.execute(
                f"DELETE FROM {table} WHERE key IN ('lorasweep.objective', 'lorasweep.metric', 'lorasweep.start')"
            )
        database.execute("DELETE FROM study_system_attributes WHERE key = 'study:metric_names'")
    database.close()

    before = evaluations(folder.trials())
    out, err = lorasweep(place, "resume", "older")
    assert err == ""
    assert "judged" not in out
    records, result = folder.trials(), folder.result()
    assert (folder.config().search.objective, folder.config().objective) == (None, "accuracy")
    assert [record.state in ("completed", "stopped") for record in records] == [True] * 6
    after = evaluations(records)
    for trial, seen in before.items():
        assert after[trial][: len(seen)] == seen
    assert result is not None
    assert result.winner is not None
    assert result.winner.score == max(record.score or 0 for record in records)
    check_study(folder, records)
    assert open_study(folder.study_url, "older").direction.name == "MAXIMIZE"
