"""A search on a part of the rows whose best settings are trained on all of them, killed in each phase."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from whole_sweeps import RUN, check_study, kill_when, lorasweep

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.part import part_of
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.tuning.record.finalists import choose_finalists, finalist_id, finalists, searched_trials
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult, Winner
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.finalists import finalist_settings

pytestmark = pytest.mark.slow

# 24 of 48 training rows, batches of 16 or 32: a rung of the search is half a finalist's.
LONG = [
    "--trials",
    "4",
    "--epochs",
    "24",
    "--evaluations-per-epoch",
    "1",
    "--proxy",
    "0.5",
    "--finalists",
    "2",
]
LONG += ["--no-asha", "--concurrency", "2", "--cpus-per-trial", "1", "--keep", "2", "--seed", "1"]
RUNGS = 24


def ended(folder: SweepFolder) -> tuple[SweepResult, Winner]:
    result = folder.result()
    assert result is not None
    assert result.winner is not None
    return result, result.winner


@pytest.fixture(scope="module")
def killed(place: Path) -> tuple[SweepFolder, list[list[TrialRecord]]]:
    """A finished sweep that was killed in its search, among its finalists and its exports; its records at each kill.

    In between, the first trial of the search that had ended was exported to `early-trial`.
    """
    folder, seen = SweepFolder(place / "mlruns", "part"), []

    def in_search() -> bool:
        trials = folder.trials()
        return any(3 <= trial.reached < RUNGS for trial in trials) and not all(t.unfinished for t in trials)

    def among_finalists() -> bool:
        return any(3 <= trial.reached < RUNGS for trial in finalists(folder.trials()))

    kill_when(place, [*RUN, *LONG, "--name", "part"], folder, in_search)
    seen.append(folder.trials())
    first = next(trial for trial in folder.trials() if not trial.unfinished)
    out, _ = lorasweep(place, "export", "part", "--trial", first.id, "--out", "early-trial")
    assert f"trial {first.id} as an adapter; loaded back with plain PEFT" in out
    kill_when(place, ["resume", "part"], folder, among_finalists)
    seen.append(folder.trials())
    # Its winner is chosen then, and the first adapter is being exported.
    kill_when(place, ["resume", "part"], folder, (folder.path / "best").is_dir)
    seen.append(folder.trials())
    assert folder.state() == "interrupted"
    lorasweep(place, "resume", "part")
    return folder, seen


def test_nothing_is_lost_and_nothing_done_twice(killed: tuple[SweepFolder, list[list[TrialRecord]]]) -> None:
    folder, seen = killed
    records = folder.trials()
    search, last = searched_trials(records), finalists(records)
    assert [trial.id for trial in search] == ["t000", "t001", "t002", "t003"]
    chosen = choose_finalists(search, "accuracy", 2)
    assert {trial.finalist_of for trial in last} == {trial.id for trial in chosen}
    assert search[0] in chosen, "the known-good start is always a finalist"
    for trial in records:
        assert trial.state == "completed", trial.error
        assert [entry.rung for entry in trial.evaluations] == list(range(1, RUNGS + 1))
        assert trial.score == max(entry.accuracy for entry in trial.evaluations)
    for trial in last:
        origin = next(other for other in search if other.id == trial.finalist_of)
        assert (trial.id, trial.number) == (finalist_id(origin), origin.number)
        assert (trial.hyperparameters, trial.start) == (finalist_settings(origin, 24, 48), origin.start)
        factor = 1 if origin.start == 1 else 0.5 ** (1 / 3)
        rate = origin.hyperparameters.learning_rate * factor
        assert trial.hyperparameters.learning_rate == pytest.approx(rate, rel=5e-3)
        # Steps tell the rows that were trained on: 24 and 48.
        size = trial.hyperparameters.batch_size
        assert origin.evaluations[-1].step == -(-24 // size) * RUNGS
        assert trial.evaluations[-1].step == -(-48 // size) * RUNGS
    # What was on record stays; of the last evaluation before a kill, the checkpoint may not have been written.
    after = {trial.id: trial for trial in records}
    for before in (trial for trials in seen for trial in trials):
        reached = len(before.evaluations)
        assert after[before.id].evaluations[:reached] == before.evaluations
    check_study(folder, search)
    in_ray = {path.name for path in folder.ray.glob("run-*/t*") if path.is_dir()}
    assert in_ray == after.keys()
    # Continued, not begun anew.
    assert not [note for trial in records for note in trial.notes]


def test_the_winner_is_a_finalist_and_its_export_predicts_what_it_did(
    killed: tuple[SweepFolder, list[list[TrialRecord]]],
) -> None:
    folder, _ = killed
    place = folder.mlruns.parent
    _, winner = ended(folder)
    last = finalists(folder.trials())
    assert winner.id in {trial.id for trial in last}
    assert winner.score == max(trial.score or 0 for trial in last)
    # Whoever sees the sweep sees a finalist first.
    assert SweepRecord(folder).ranked()[0].id == winner.id
    lorasweep(place, "export", "part", "--out", "best-of-part")
    data = Dataset.load(folder.data)
    logits = predict(load_classifier(place / "best-of-part"), data.test.text, None)
    assert (logits.argmax(axis=1) == data.test.labels).mean() == pytest.approx(winner.test.accuracy)
    saved = load_file(folder.winner / "test.safetensors")["logits"]
    assert np.abs(logits - saved).max() < 1e-4
    assert {path.name for path in (folder.path / "best").iterdir()} <= {trial.id for trial in last}
    # Another finalist can be exported, too.
    other = next(trial for trial in last if trial.checkpoint and trial.id != winner.id)
    out, _ = lorasweep(place, "export", "part", "--trial", other.id, "--out", "other-of-part")
    assert f"trial {other.id} as an adapter" in out
    assert f"with the settings of {other.finalist_of}" in (place / "other-of-part" / "README.md").read_text()


def test_mlflow_status_and_report_have_the_finalists(
    killed: tuple[SweepFolder, list[list[TrialRecord]]], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    folder, _ = killed
    place = folder.mlruns.parent
    _, winner = ended(folder)
    client = MlflowClient(f"sqlite:///{folder.mlruns / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    best_first = ["metrics.score DESC"]
    runs = client.search_runs(
        experiments,
        "tags.`lorasweep.sweep` = 'part' and tags.`lorasweep.kind` = 'trial'",
        order_by=best_first,
    )
    records = {trial.id: trial for trial in folder.trials()}
    children = {run.data.tags["lorasweep.trial"]: run for run in runs}
    assert len(runs) == len(children)
    assert children.keys() == records.keys()
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial_id, record in records.items():
        run = children[trial_id]
        assert run.data.tags.get("lorasweep.finalist_of") == record.finalist_of
        own, other = ("score", "part/score") if record.finalist_of else ("part/score", "score")
        assert run.data.metrics[own] == record.score
        assert other not in run.data.metrics
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        told = sorted((point.step, point.value) for point in history)
        assert told == [(entry.rung, entry.accuracy) for entry in record.evaluations]
    assert runs[0].data.metrics["score"] == winner.score
    assert records[runs[0].data.tags["lorasweep.trial"]].finalist_of

    shown = json.loads(lorasweep(place, "status", "part", "--json")[0])
    assert {entry["id"]: entry.get("finalist_of") for entry in shown["trials"]} == {
        trial.id: trial.finalist_of for trial in records.values()
    }
    out, _ = lorasweep(place, "status", "part", "--all")
    assert "4 completed; finalists on all rows:" in out
    assert "-full: trained and judged on all rows; the others on 50 % of the rows (24)" in out
    lorasweep(place, "report", "part", "--out", str(tmp_path / "part.html"))
    page = (tmp_path / "part.html").read_text()
    assert "50 % of the rows (24), with 6 validation rows" in page
    assert all(f">{trial_id}" in page for trial_id in records)


def test_more_trials_bring_new_finalists_and_the_old_ones_stay(place: Path) -> None:
    """A trial of the search is exported, too: its own predictions are those of the part's validation rows."""
    name, settings = "grown", ["--epochs", "2", "--proxy", "30", "--finalists", "1", "--no-asha"]
    folder = SweepFolder(place / "mlruns", name)
    out, _ = lorasweep(place, *RUN, *settings, "--trials", "2", "--name", name, "--no-baselines")
    assert "2 on 62 % of the rows (30) by TPE" in out
    first = folder.trials()
    old = finalists(first)
    assert old
    data = Dataset.load(folder.data)
    part = part_of(data.train.labels, data.validation.labels, 30, 0)
    assert (len(part.train), len(part.validation)) == (30, 6)

    out, _ = lorasweep(place, "run", "--name", name, "--trials", "4", "--extend")
    records = folder.trials()
    assert len(searched_trials(records)) == 4
    assert [trial for trial in records if trial.id in {t.id for t in first}] == [
        trial.model_copy(update={"checkpoint": after.checkpoint, "last_checkpoint": after.last_checkpoint})
        for trial, after in ((t, next(a for a in records if a.id == t.id)) for t in first)
    ]
    wanted = {finalist_id(trial) for trial in choose_finalists(records, "accuracy", 1)}
    assert {trial.id for trial in finalists(records)} == wanted | {trial.id for trial in old}
    _, winner = ended(folder)
    assert winner.id in {trial.id for trial in finalists(records)}
    _, err = lorasweep(place, "run", "--name", name, "--trials", "6", "--extend", "--proxy", "0.5", code=2)
    assert err.startswith("lorasweep: --proxy 0.5: sweep grown has 30.0;")


def test_a_trial_of_the_search_can_be_exported(
    killed: tuple[SweepFolder, list[list[TrialRecord]]], place: Path
) -> None:
    """Before its finalists are trained; it is compared with what it predicted on its own rows."""
    card = (place / "early-trial" / "README.md").read_text()
    assert r"searched on: 50 % of the rows \(24\); this trial, too" in card
