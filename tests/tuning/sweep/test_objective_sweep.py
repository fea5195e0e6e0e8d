"""Whole sweeps whose trials are judged by another score than the winner, killed and resumed; and one from before."""

from __future__ import annotations

import json
import sqlite3
from itertools import accumulate
from pathlib import Path

import pytest
import yaml
from whole_sweeps import RUN, check_study, lorasweep, start, wait_for

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import TrialRecord
from lorasweep.tuning.search.study import open_study, own_trials

pytestmark = pytest.mark.slow

RUNGS = 12
ARGUMENTS = [
    "--trials",
    "7",
    "--epochs",
    "6",
    "--concurrency",
    "2",
    "--cpus-per-trial",
    "1",
    "--no-baselines",
]


def killed(place: Path, name: str, *arguments: str) -> SweepFolder:
    """A sweep whose driver was killed while trials ran that had some evaluations on record."""
    folder = SweepFolder(place / "mlruns", name)
    process = start(place, *RUN, *ARGUMENTS, "--name", name, *arguments)
    try:
        wait_for(lambda: any(3 <= trial.reached < RUNGS for trial in folder.trials()), process)
    finally:
        process.kill()
        process.communicate()
    assert folder.state() == "interrupted"
    assert any(trial.unfinished for trial in folder.trials())
    return folder


def evaluations(records: list[TrialRecord]) -> dict[str, list[tuple[float | None, float | None]]]:
    """What was measured at each rung."""
    return {record.id: [(entry.accuracy, entry.loss) for entry in record.evaluations] for record in records}


def test_a_sweep_judged_by_loss_is_killed_and_ends_with_the_most_accurate_trial(place: Path) -> None:
    from mlflow import MlflowClient

    folder = killed(place, "judged")
    before = evaluations(folder.trials())
    out, _ = lorasweep(place, "resume", "judged")
    config, records, result = folder.config(), folder.trials(), folder.result()
    assert (config.search.objective, config.objective, config.training.metric) == ("loss", "loss", "accuracy")
    assert [record.number for record in records] == list(range(7))
    after = evaluations(records)
    for trial, seen in before.items():
        assert after[trial][: len(seen)] == seen, "nothing on record was measured again"
    for record in records:
        losses = [entry.loss for entry in record.evaluations]
        accuracies = [entry.accuracy for entry in record.evaluations]
        assert [entry.objective for entry in record.evaluations] == list(accumulate(losses, min))
        assert [entry.score for entry in record.evaluations] == list(accumulate(accuracies, max))
        # The checkpoint is the one of the best accuracy: export scores it.
        assert record.score == accuracies[(record.best_rung or 0) - 1]
    # The known-good start is trained to its end, whatever its loss.
    assert [record.start for record in records if record.start is not None][:1] == [1]
    assert (records[0].start, records[0].state, records[0].reached) == (1, "completed", RUNGS)
    assert result is not None
    assert result.winner is not None
    assert result.winner.score == max(record.score or 0 for record in records)
    assert "; trials were judged by loss" in " ".join(out.split())

    check_study(folder, records)
    study = open_study(folder.study_url, "judged")
    assert study.direction.name == "MINIMIZE"
    for record, trial in zip(records, own_trials(study).values(), strict=True):
        assert trial.user_attrs["accuracy"] == record.score
        if record.state == "completed":
            assert trial.value == min(entry.loss for entry in record.evaluations if entry.loss is not None)

    client = MlflowClient(f"sqlite:///{folder.mlruns / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`lorasweep.sweep` = 'judged'")
    assert {run.data.tags["lorasweep.objective"] for run in runs} == {"loss"}
    children = {run.data.tags["lorasweep.trial"]: run for run in runs if "lorasweep.trial" in run.data.tags}
    for record in records:
        history = client.get_metric_history(children[record.id].info.run_id, "objective")
        told = sorted((point.step, point.value) for point in history)
        assert told == [(entry.rung, entry.objective) for entry in record.evaluations]
    assert children["t000"].data.tags["lorasweep.start"] == "1"


def test_a_sweep_from_before_there_was_an_objective_goes_on_by_its_metric(place: Path) -> None:
    folder = killed(place, "older", "--objective", "accuracy")
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
    assert [record.state in ("completed", "stopped") for record in records] == [True] * 7
    after = evaluations(records)
    for trial, seen in before.items():
        assert after[trial][: len(seen)] == seen
    assert result is not None
    assert result.winner is not None
    assert result.winner.score == max(record.score or 0 for record in records)
    check_study(folder, records)
    assert open_study(folder.study_url, "older").direction.name == "MAXIMIZE"
