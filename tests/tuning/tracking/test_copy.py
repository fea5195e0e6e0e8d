"""A sweep's copy in a real SQLite store, with made-up records."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters, TrainingSettings
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import Gain, Reference, StartReference, SweepResult, TestScores, Winner
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord
from lorasweep.tuning.tracking.copy import copy_sweep
from lorasweep.tuning.tracking.entries import sweep_params, trial_metrics
from lorasweep.tuning.tracking.runs import EXPERIMENT, SweepRuns, identity_of
from lorasweep.tuning.tracking.store import artifact_root, connect, prepare_store
from lorasweep.tuning.tracking.thread import MLflowCopy
from lorasweep.tuning.tracking.views import experiment_tags, view_links

STARTED = 1_700_000_000.0
CONFIG = SweepConfig(name="demo", training=TrainingSettings(epochs=3, evaluations_per_epoch=2))


def evaluation(rung: int, accuracy: float) -> dict[str, float]:
    """One rung as `Evaluation.to_dict` gives it."""
    return {
        "rung": rung,
        "step": 10 * rung,
        "epoch": rung / 2,
        "learning_rate": 1e-3 / rung,
        "train_loss": 2.0 / rung,
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.1,
        "loss": 1.0 - accuracy,
        "seconds": 1.5 * rung,
        "samples_per_second": 100.0,
        "score": accuracy,
    }


def trial(number: int, accuracies: list[float], state: str = "running", **more: object) -> TrialRecord:
    """A record whose evaluations have these accuracies."""
    return TrialRecord.model_validate(
        {
            "id": f"t{number:03d}",
            "number": number,
            "state": state,
            "settings": {"method": "lora", "rank": 8, "base_dropout": None},
            "evaluations": [evaluation(rung, accuracy) for rung, accuracy in enumerate(accuracies, 1)],
            "score": max(accuracies, default=None),
            "best_rung": accuracies.index(max(accuracies)) + 1 if accuracies else None,
            "trainable_parameters": 4_711 if accuracies else None,
            "started": STARTED + 100 * number,
            "ended": None if state == "running" else STARTED + 100 * number + 50,
        }
        | more
    )


SUMMARY = {
    "data": {"source": "news/all.csv", "fingerprint": "f" * 64, "rows": {"train": 12}, "classes": 3},
    "text_columns": ["headline", "body"],
    "label_column": "topic",
    "git": {"commit": "c" * 40, "changed": True},
}
TRIALS = [
    trial(0, [0.5, 0.7, 0.6, 0.8, 0.75, 0.8], "completed", notes=("micro-batch halved",)),
    trial(1, [0.2, 0.3], "stopped"),
    trial(2, [0.4], "failed", error="the loss is not finite"),
    trial(3, [0.6, 0.5]),
]
RESULT = SweepResult(
    state="finished",
    metric="accuracy",
    seconds=200.0,
    winner=Winner(
        id="t000",
        score=0.8,
        settings={"rank": 8},
        test=TestScores(accuracy=0.79, macro_f1=0.7, loss=0.6),
        interval={"accuracy": (0.75, 0.83)},
    ),
    baselines={"TF-IDF + logistic regression": TestScores(accuracy=0.6, macro_f1=0.5, loss=1.1)},
    untuned=Reference(
        settings={"rank": 8},
        score=0.3,
        seconds=9.0,
        test=TestScores(accuracy=0.31, macro_f1=0.2, loss=1.6),
    ),
)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's file as `prepare_store` leaves it; the schema takes seconds, so the tests copy it."""
    mlruns = tmp_path_factory.mktemp("store") / "mlruns"
    prepare_store(f"sqlite:///{mlruns / 'mlflow.db'}", mlruns)
    return mlruns / "mlflow.db"


class Place:
    """An mlruns folder with an empty store and one sweep."""

    def __init__(self, root: Path, store: Path) -> None:
        self.mlruns = root / "mlruns"
        self.folder = SweepFolder(self.mlruns, "demo")
        self.folder.create(CONFIG)
        self.folder.write_plan(SUMMARY)
        (self.folder.path / "space.yaml").write_text("rank: {choice: [8, 16]}\n")
        shutil.copy(store, self.mlruns / "mlflow.db")
        self.uri = f"sqlite:///{self.mlruns / 'mlflow.db'}"

    def copy(self) -> MLflowCopy:
        """A new one, as a process that starts has it."""
        return MLflowCopy(self.folder, self.uri, retry_after=0.0)

    def open(self) -> SweepRuns:
        """The sweep's runs, looked up anew."""
        artifacts, identity = artifact_root(self.mlruns), identity_of(self.folder.path)
        return SweepRuns(self.uri, EXPERIMENT, artifacts, self.folder.name, identity)

    def fill(self, *trials: TrialRecord, runs: SweepRuns | None = None) -> None:
        """Copy a running sweep after these trials have changed."""
        for record in trials:
            self.folder.write_trial(record)
        sweep = SweepRecord(self.folder)
        sweep.state = "running"
        copy_sweep(sweep, runs or self.open())

    def runs(self) -> dict[str, object]:
        """Trial, or the sweep's name → run."""
        client = connect(self.uri)
        found = client.search_runs([client.get_experiment_by_name("lorasweep").experiment_id])
        names = [run.data.tags.get("lorasweep.trial", run.info.run_name) for run in found]
        assert len(names) == len(set(names)), "runs doubled"
        return dict(zip(names, found, strict=True))

    def shown(self) -> set[str]:
        """Trials that have a run by now."""
        return set(self.runs()) if connect(self.uri).get_experiment_by_name("lorasweep") else set()

    def names(self) -> list[str]:
        """What the runs are shown as."""
        return sorted(run.info.run_name for run in self.runs().values())

    def experiment_tags(self) -> dict[str, str]:
        return dict(connect(self.uri).get_experiment_by_name("lorasweep").tags)

    def note(self, name: str) -> str | None:
        """A run's description."""
        return self.runs()[name].data.tags.get("mlflow.note.content")

    def histories(self) -> dict[str, dict[str, list[tuple[int, int, float]]]]:
        """Trial, or the sweep's name → metric → (step, milliseconds, value)."""
        client = connect(self.uri)
        return {
            name: {
                key: [(point.step, point.timestamp, point.value) for point in history]
                for key in run.data.metrics
                if (history := client.get_metric_history(run.info.run_id, key))
            }
            for name, run in self.runs().items()
        }

    def artifacts(self, name: str, path: str | None = None) -> set[str]:
        """What a run keeps."""
        return {entry.path for entry in connect(self.uri).list_artifacts(self.runs()[name].info.run_id, path)}


@pytest.fixture
def place(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, empty_store)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Place:
    """A sweep that has run, to look at only."""
    place = Place(tmp_path_factory.mktemp("done"), empty_store)
    run_sweep(place)
    return place


def adapter(place: Place, text: str = "weights") -> Path:
    path = place.folder.path / "best" / "t000"
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").write_text(text)
    return path


def run_sweep(place: Place) -> None:
    """As a driver goes: every trial rung by rung, its record on disk first."""
    copy = place.copy()
    copy.begin(SUMMARY, [])
    for record in TRIALS:
        for rungs in range(len(record.evaluations) + 1):
            part = record.model_copy(
                update={
                    "state": "running",
                    "evaluations": record.evaluations[:rungs],
                    "trainable_parameters": 4_711 if rungs else None,
                    "ended": None,
                    "error": None,
                }
            )
            place.folder.write_trial(part)
            copy.update(part)
        place.folder.write_trial(record)
        copy.update(record)
        wait_until(lambda id=record.id: id in place.shown())  # type: ignore[misc]
    place.folder.write_result(RESULT)
    copy.end(RESULT, {"t000": adapter(place)})
    assert copy.published


def wait_until(true: Callable[[], bool]) -> None:
    """Give the copying thread the time it takes."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_sweep_is_a_parent_with_a_child_a_trial(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    run_sweep(place)
    runs = place.runs()
    assert set(runs) == {"demo", "t000", "t001", "t002", "t003"}
    parent = runs.pop("demo")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.data.tags["lorasweep.sweep"] for run in [parent, *runs.values()]} == {"demo"}
    assert {name: run.data.tags["lorasweep.trial"] for name, run in runs.items()} == {
        name: name for name in runs
    }
    assert {run.data.tags["lorasweep.kind"] for run in runs.values()} == {"trial"}
    assert parent.data.tags["lorasweep.kind"] == "sweep"
    assert parent.data.params["training.epochs"] == "3"
    assert parent.data.params["data.fingerprint"] == "f" * 64
    assert parent.data.params["data.classes"] == "3"
    assert parent.data.tags["mlflow.source.git.commit"] == "c" * 40
    assert parent.data.tags["mlflow.source.git.dirty"] == "true"
    params = runs["t001"].data.params
    assert params.keys() == {*Hyperparameters.model_fields, "trainable_parameters"}
    assert (params["method"], params["rank"], params["base_dropout"]) == ("lora", "8", "null")
    assert params["trainable_parameters"] == "4711"
    assert (runs["t001"].info.start_time, runs["t001"].info.end_time) == (
        1_700_000_100_000,
        1_700_000_150_000,
    )
    assert place.artifacts("demo") >= {"config.yaml", "space.yaml", "report"}
    for run in [parent, *runs.values()]:
        (used,) = run.inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("all.csv", "f" * 10)
        assert json.loads(used.dataset.source) == {"uri": "news/all.csv"}
        assert [column["name"] for column in json.loads(used.dataset.schema)["mlflow_colspec"]] == [
            "headline",
            "body",
            "topic",
        ]
    assert [path.name for path in Path.cwd().iterdir()] == ["mlruns"]
    assert {path.name for path in place.mlruns.iterdir()} == {"artifacts", "mlflow.db", "sweeps"}
    assert capfd.readouterr() == ("", "")


def test_it_says_how_each_trial_ended(done: Place) -> None:
    runs = done.runs()
    assert {name: run.info.status for name, run in runs.items()} == {
        "demo": "FINISHED",
        "t000": "FINISHED",
        "t001": "FINISHED",
        "t002": "FAILED",
        "t003": "KILLED",
    }
    ended = {name: run.data.tags.get("lorasweep.ended") for name, run in runs.items()}
    assert ended["demo"] == "1 completed, 1 stopped by ASHA, 1 failed, 1 to go on"
    assert ended["t000"] == "completed 6 rungs"
    assert ended["t001"] == "stopped by ASHA at rung 2 of 6"
    assert ended["t002"] == "failed after rung 1 of 6"
    states = {name: run.data.tags["lorasweep.state"] for name, run in runs.items()}
    assert states == {
        "demo": "finished",
        "t000": "completed",
        "t001": "stopped",
        "t002": "failed",
        "t003": "interrupted",
    }
    assert runs["t002"].data.tags["lorasweep.error"] == "the loss is not finite"
    # MLflow's status is the same for the first two, and its table holds the trials of all sweeps.
    assert done.names() == [
        "demo",
        "t000 winner (demo)",
        "t001 stopped at 2/6 (demo)",
        "t002 failed at 1/6 (demo)",
        "t003 interrupted at 2/6 (demo)",
    ]
    assert runs["t000"].data.tags["lorasweep.notes"] == "micro-batch halved"
    assert {name for name, run in runs.items() if run.data.tags.get("lorasweep.winner") == "true"} == {"t000"}
    assert runs["demo"].data.tags["lorasweep.winner"] == "t000"
    assert runs["demo"].data.metrics == {
        "system/seconds": 200.0,
        "score": 0.8,
        "test/accuracy": 0.79,
        "test/macro_f1": 0.7,
        "test/loss": 0.6,
        "test/accuracy_low": 0.75,
        "test/accuracy_high": 0.83,
        "baseline/tf_idf_logistic_regression_accuracy": 0.6,
        "baseline/tf_idf_logistic_regression_macro_f1": 0.5,
        "baseline/tf_idf_logistic_regression_loss": 1.1,
        "untuned/score": 0.3,
        "untuned/test_accuracy": 0.31,
        "untuned/test_macro_f1": 0.2,
        "untuned/test_loss": 1.6,
    }


def test_a_sweep_describes_itself(done: Place) -> None:
    """Its winner with a link, the interval, what it has to beat, the failed trial's error, what to do next."""
    runs = done.runs()
    note = done.note("demo") or ""
    assert f"/runs/{runs['t000'].info.run_id}?workflowType=machine_learning)**" in note
    assert "test accuracy **79.0% (75.0% to 83.0%)**; untuned default 31.0%, TF-IDF" in note
    assert "Validation accuracy 80.0%" in note
    assert "| winner | 79.0% (75.0% to 83.0%) | 70.0% | 0.6000 |" in note
    assert "| TF-IDF \\+ logistic regression | 60.0% | 50.0% | 1.1000 |" in note
    assert "1 completed, 1 stopped by ASHA, 1 failed, 1 to go on" in note
    assert "t002 failed: the loss is not finite" in note
    assert "    lorasweep export demo --out best-adapter" in note
    assert done.note("t002") == "**Failed**: the loss is not finite"
    assert done.note("t001") is None


def test_the_winners_page_has_its_test_scores_and_the_way_to_get_it(done: Place) -> None:
    runs, note = done.runs(), done.note("t000") or ""
    parent = runs["demo"].info.run_id
    assert re.match(
        rf"\*\*Winner of \[demo\]\(#/experiments/\d+/runs/{parent}\?\S+\)\*\*, test accuracy", note
    )
    assert "| winner | 79.0% (75.0% to 83.0%) | 70.0% | 0.6000 |" in note
    assert "micro-batch halved" in note
    assert "    lorasweep export demo --out best-adapter" in note


def test_settings_are_rounded_to_read_and_exact_to_repeat(place: Place) -> None:
    """MLflow's table shows a param with all its digits; a tag stands in for it."""
    drawn = {"learning_rate": 0.00021637284951, "dropout": 0.1234567891, "alpha": 16.0, "rank": 8}
    place.fill(
        trial(0, [0.5], settings=drawn, searched=("learning_rate", "dropout"), trainable_parameters=1_329_799)
    )
    data = place.runs()["t000"].data
    assert {name: data.tags.get(name) for name in ("rate", "dropout", "alpha", "size", "warmup")} == {
        "rate": "2.2e-4",
        "dropout": "0.1235",
        "alpha": "16",
        "size": "1.3 M",
        "warmup": None,
    }
    assert (data.params["learning_rate"], data.params["dropout"]) == ("0.00021637284951", "0.1234567891")


def test_each_sweep_has_a_view_of_its_own(place: Place) -> None:
    place.folder.write_plan(SUMMARY | {"searched": ["rank", "learning_rate", "batch_size", "dropout"]})
    place.fill(TRIALS[1])
    tag = json.loads(place.experiment_tags()["mlflow.sharedViewState.sweep-demo"])
    state = json.loads(tag["state"])
    assert tag["name"] == "demo"
    assert state["selectedColumns"] == [
        *(f"metrics.`{name}`" for name in ("score", "val_macro_f1", "val_loss")),
        *(f"params.`{name}`" for name in ("rank", "batch_size")),
        *(f"tags.`{name}`" for name in ("rate", "dropout", "size", "lorasweep.ended")),
    ]
    client = connect(place.uri)
    experiment = client.get_experiment_by_name("lorasweep").experiment_id
    others = {"lorasweep.kind": "trial", "lorasweep.sweep": "another", "lorasweep.metric": "accuracy"}
    client.create_run(experiment, tags=others | {"lorasweep.trial": "t007"})
    found = client.search_runs([experiment], state["searchFilter"])
    assert [run.data.tags["lorasweep.trial"] for run in found] == ["t001"]
    place.copy().end(RESULT, {})
    assert "viewStateShareKey=sweep-demo" in (place.note("demo") or "")


def test_a_sweep_that_an_earlier_version_published_gets_its_names(place: Place) -> None:
    run_sweep(place)
    shown = {name: (run.info.run_name, run.data.tags, run.data.metrics) for name, run in place.runs().items()}
    client, added = connect(place.uri), ("rate", "alpha", "size")
    for name, run in place.runs().items():
        if name != "demo":
            client.update_run(run.info.run_id, name=f"{name} completed")
            for tag in added:
                if tag in run.data.tags:
                    client.delete_tag(run.info.run_id, tag)
    place.copy().publish()
    again = {name: (run.info.run_name, run.data.tags, run.data.metrics) for name, run in place.runs().items()}
    assert again == shown


def test_a_description_cannot_be_broken_out_of(place: Place) -> None:
    hostile = trial(
        2, [0.4], "failed", error="<img src=x onerror=alert(1)>\n# [x](javascript:alert(1)) | `y`"
    )
    place.folder.write_trial(hostile)
    place.copy().end(SweepResult(state="failed", metric="accuracy", error="a|b\n<b>"), {})
    for name in ("demo", "t002"):
        note = place.note(name) or ""
        assert "\\<img src=x onerror=alert\\(1\\)\\> \\# \\[x\\]" in note
        assert not re.search(r"(?<!\\)<", note)
    assert "**failed**: a\\|b \\<b\\>" in (place.note("demo") or "")


def test_a_description_that_a_person_wrote_stays(place: Place) -> None:
    run_sweep(place)
    client = connect(place.uri)
    client.set_tag(place.runs()["demo"].info.run_id, "mlflow.note.content", "keep this one")
    place.copy().publish()
    assert place.note("demo") == "keep this one"


def test_the_experiment_opens_with_columns_that_mean_something(done: Place) -> None:
    links = dict(view_links(done.uri, "lorasweep", "http://127.0.0.1:5000/"))
    assert list(links) == ["sweeps", "trials by accuracy"]
    experiment = connect(done.uri).get_experiment_by_name("lorasweep")
    page = (
        f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    )
    assert links["trials by accuracy"] == f"{page}&viewStateShareKey=trials-accuracy"
    state = json.loads(json.loads(experiment.tags["mlflow.sharedViewState.trials-accuracy"])["state"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`score`", False)
    # What the view asks for is there, and its filter finds the trials alone.
    found = connect(done.uri).search_runs(
        [experiment.experiment_id], state["searchFilter"], order_by=["metrics.`score` DESC"]
    )
    assert [run.data.tags["lorasweep.trial"] for run in found] == ["t000", "t003", "t002", "t001"]
    assert {"metrics.`score`", "metrics.`val_loss`", "params.`rank`"} <= set(state["selectedColumns"])
    assert view_links(done.uri, "another", "http://127.0.0.1:5000") == []


def test_a_loss_is_sorted_from_below() -> None:
    state = json.loads(json.loads(experiment_tags("loss")["mlflow.sharedViewState.trials-loss"])["state"])
    assert state["orderByAsc"] is True
    assert state["selectedColumns"][1:3] == ["metrics.`val_accuracy`", "metrics.`val_macro_f1`"]


def test_every_evaluation_is_there_once(done: Place) -> None:
    metrics = done.histories()["t000"]
    start = int(STARTED * 1000)
    times = [(rung, start + 1500 * rung) for rung in range(1, 7)]
    accuracies = [0.5, 0.7, 0.6, 0.8, 0.75, 0.8]
    assert metrics["val_accuracy"] == [(*time, value) for time, value in zip(times, accuracies, strict=True)]
    assert [value for _, _, value in metrics["score"]] == [0.5, 0.7, 0.7, 0.8, 0.8, 0.8]
    assert [value for _, _, value in metrics["system/epoch"]] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert set(metrics) == {
        "val_accuracy",
        "val_macro_f1",
        "val_loss",
        "train_loss",
        "system/learning_rate",
        "system/epoch",
        "system/seconds",
        "system/samples_per_second",
        "score",
    }
    assert {name: len(done.histories()[name]["system/epoch"]) for name in ("t001", "t002", "t003")} == {
        "t001": 2,
        "t002": 1,
        "t003": 2,
    }


def test_filling_again_doubles_nothing(place: Place) -> None:
    run_sweep(place)
    histories, adapters = place.histories(), place.artifacts("t000", "adapter")
    shown = {name: (run.info.run_name, run.data.tags) for name, run in place.runs().items()}
    experiment = place.experiment_tags()
    times = {name: (run.info.start_time, run.info.end_time) for name, run in place.runs().items()}
    ids = {name: run.info.run_id for name, run in place.runs().items()}
    (uploaded,) = place.mlruns.glob("artifacts/lorasweep/*/artifacts/adapter/adapter_model.safetensors")
    written = uploaded.stat().st_mtime_ns
    place.folder.write_plan({**SUMMARY, "data": SUMMARY["data"] | {"classes": 9}})
    for _ in range(2):
        again = place.copy()
        again.publish()
        again.publish()
    assert place.histories() == histories
    assert {name: (run.info.run_name, run.data.tags) for name, run in place.runs().items()} == shown
    assert place.experiment_tags() == experiment
    assert {name: run.info.run_id for name, run in place.runs().items()} == ids
    assert place.artifacts("t000", "adapter") == adapters
    assert adapters == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert uploaded.stat().st_mtime_ns == written, "the adapter was uploaded again"
    assert place.runs()["demo"].data.params["data.classes"] == "3"
    assert {name: (run.info.start_time, run.info.end_time) for name, run in place.runs().items()} == times


TRIAL_IDS = ("t000", "t001", "t002", "t003")


def test_a_rung_that_is_done_again_stands_once(place: Place) -> None:
    """A trial that falls back to an earlier checkpoint reaches its rungs again, at other times."""
    first = trial(0, [0.5, 0.7])
    place.fill(first)
    again = [e.model_copy(update={"seconds": e.seconds + 7}) for e in first.evaluations]
    runs = place.open()
    place.fill(first.model_copy(update={"evaluations": tuple(again[:1])}), runs=runs)
    place.fill(first.model_copy(update={"evaluations": tuple(again)}), runs=runs)
    assert [step for step, _, _ in place.histories()["t000"]["system/seconds"]] == [1, 2]
    assert place.histories()["t000"]["system/seconds"][1][2] == 3.0


def test_an_empty_store_is_filled_from_the_folder(place: Place, empty_store: Path) -> None:
    run_sweep(place)
    before = place.histories()
    place.folder.write_plan({"data": {"fingerprint": "abc"}})
    # Longer than its trials: the winner was tested and the baselines fitted after them.
    place.folder.write_result(RESULT.model_copy(update={"seconds": 400.0}))
    elsewhere = place.mlruns / "other.db"
    shutil.copy(empty_store, elsewhere)
    place.uri = f"sqlite:///{elsewhere}"
    place.copy().publish()
    runs, filled = place.runs(), place.histories()
    assert {name: filled[name] for name in TRIAL_IDS} == {name: before[name] for name in TRIAL_IDS}
    assert runs["demo"].info.status == "FINISHED"
    assert runs["t003"].info.status == "KILLED"
    assert runs["demo"].data.params["data.fingerprint"] == "abc"
    assert runs["demo"].info.start_time == STARTED * 1000
    assert runs["demo"].info.end_time == (STARTED + 400) * 1000
    assert place.artifacts("t000") == {"adapter"}


def test_a_resumed_sweep_goes_on_in_the_same_runs(place: Place) -> None:
    first = place.copy()
    first.begin({}, [])
    place.folder.write_trial(TRIALS[3])
    first.update(TRIALS[3])
    first.end(SweepResult(state="interrupted", metric="accuracy"), {})
    runs = place.runs()
    assert (runs["demo"].info.status, runs["t003"].info.status) == ("KILLED", "KILLED")
    assert place.names() == ["demo", "t003 interrupted at 2/6 (demo)"]
    assert "lorasweep resume demo" in (place.note("demo") or "")
    ids = {name: run.info.run_id for name, run in runs.items()}

    with place.folder.lock():
        place.copy().publish()
        runs = place.runs()
        assert (runs["demo"].info.status, runs["t003"].info.status) == ("RUNNING", "RUNNING")
        assert runs["t003"].data.tags["lorasweep.state"] == "running"
        assert "lorasweep.ended" not in runs["demo"].data.tags
        assert place.names() == ["demo", "t003 (demo)"]
        assert place.note("demo") is None
        second = place.copy()
        second.begin({}, [TRIALS[3]])
        ended = trial(3, [0.6, 0.5, 0.9], "stopped")
        place.folder.write_trial(ended)
        second.update(ended)
        second.end(RESULT, {})
    runs = place.runs()
    assert {name: run.info.run_id for name, run in runs.items()} == ids
    assert [step for step, _, _ in place.histories()["t003"]["val_accuracy"]] == [1, 2, 3]
    assert (runs["demo"].info.status, runs["t003"].info.status) == ("FINISHED", "FINISHED")
    assert place.names() == ["demo", "t003 stopped at 3/6 (demo)"]


def test_the_winner_may_change(place: Place) -> None:
    run_sweep(place)
    other = RESULT.model_copy(
        update={"winner": Winner(id="t003", score=0.9, settings={}, test=RESULT.winner.test)}  # type: ignore[union-attr]
    )
    place.copy().end(other, {"t000": adapter(place)})
    runs = place.runs()
    assert [name for name in TRIAL_IDS if "lorasweep.winner" in runs[name].data.tags] == ["t003"]
    assert runs["demo"].data.tags["lorasweep.winner"] == "t003"
    assert (runs["t000"].info.run_name, runs["t003"].info.run_name) == (
        "t000 completed (demo)",
        "t003 winner (demo)",
    )
    assert place.note("t000") == "micro-batch halved"
    assert runs["demo"].data.metrics["score"] == 0.9


def test_a_better_adapter_of_a_trial_replaces_the_older(place: Place) -> None:
    place.folder.write_trial(trial(0, [0.5]))
    place.copy().end(SweepResult(state="interrupted", metric="accuracy"), {"t000": adapter(place, "old")})
    place.folder.write_trial(trial(0, [0.5, 0.6], "completed"))
    place.copy().end(RESULT, {"t000": adapter(place, "new")})
    (uploaded,) = place.mlruns.glob("artifacts/lorasweep/*/artifacts/adapter/adapter_model.safetensors")
    assert uploaded.read_text() == "new"
    # The same weights with another card: who has won may have changed.
    newer = adapter(place, "newer")
    (newer / "README.md").write_text("the winner")
    place.copy().end(RESULT, {"t000": newer})
    assert uploaded.read_text() == "newer"
    place.copy().end(RESULT, {"t000": newer})


def test_a_new_sweep_of_an_old_name_gets_runs_of_its_own(place: Place) -> None:
    place.fill()
    shutil.rmtree(place.folder.path)
    place.folder.create(CONFIG)
    place.fill()
    client = connect(place.uri)
    found = client.search_runs(
        [client.get_experiment_by_name("lorasweep").experiment_id], "tags.`lorasweep.sweep` = 'demo'"
    )
    assert len(found) == 2


def test_a_store_that_fails_does_not_stop_the_sweep(
    place: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def update(record: TrialRecord) -> None:
        place.folder.write_trial(record)
        copy.update(record)

    copy = place.copy()
    copy.begin(SUMMARY, [])
    update(trial(0, [0.5]))
    wait_until(lambda: "t000" in place.shown() and "system/epoch" in place.histories()["t000"])
    store, away = place.mlruns / "mlflow.db", place.mlruns / "away.db"
    shutil.copy(store, away)
    # MLflow holds the file open, so it is spoiled in place: removed, it would go on working.
    store.write_bytes(b"not a database, but long enough to be taken for one" * 200)
    with caplog.at_level(logging.WARNING, logger="lorasweep"):
        update(trial(0, [0.5, 0.7]))
        wait_until(lambda: bool(caplog.messages))
        update(trial(1, [0.2]))
        time.sleep(1)
    assert len(caplog.messages) == 1
    assert "the sweep goes on" in caplog.messages[0]
    caplog.clear()
    shutil.copy(away, store)
    update(trial(1, [0.2, 0.3], "stopped"))
    wait_until(lambda: "t001 stopped at 2/6 (demo)" in place.names())
    assert caplog.messages == []
    assert [step for step, _, _ in place.histories()["t000"]["system/epoch"]] == [1, 2]
    assert [step for step, _, _ in place.histories()["t001"]["system/epoch"]] == [1, 2]

    store.write_bytes(b"not a database, but long enough to be taken for one" * 200)
    with caplog.at_level(logging.WARNING, logger="lorasweep"):
        copy.end(RESULT, {})
        assert not copy.published
    assert str(place.folder.path) in caplog.messages[-1]
    assert "lorasweep publish demo" in caplog.messages[-1]
    with pytest.raises(SettingsError, match="cannot be written to"):
        place.copy().publish()
    shutil.copy(away, store)
    place.folder.write_result(RESULT)
    copy.publish()
    assert copy.published
    assert place.runs()["demo"].info.status == "FINISHED"
    assert capfd.readouterr() == ("", "")


def test_a_broken_record_is_not_taken_for_a_store_that_fails(place: Place) -> None:
    place.fill(trial(0, [0.5]))
    (place.folder.path / "trials" / "t000.json").write_text("{")
    with pytest.raises(SettingsError, match=r"t000\.json: not a readable record"):
        place.copy().publish()
    with pytest.raises(SettingsError, match=r"t000\.json: not a readable record"):
        place.copy().end(RESULT, {})


def test_the_report_is_drawn_again_only_when_there_is_news(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(folder: SweepFolder) -> dict[str, bytes]:
        drawn.append(folder.name)
        return {"report/report.html": b"<p>" + str(len(drawn)).encode(), "report/trials.csv": b"trial"}

    monkeypatch.setattr("lorasweep.tuning.report.page.report_files", draw)
    run_sweep(place)
    place.copy().publish()
    place.folder.write_result(RESULT.model_copy(update={"published": True}))
    place.copy().publish()
    assert drawn == ["demo"]
    assert place.artifacts("demo") == {"config.yaml", "space.yaml", "report"}
    place.folder.write_trial(trial(4, [0.1], "stopped"))
    place.copy().publish()
    assert len(drawn) == 2


def test_a_report_that_cannot_be_drawn_holds_nothing_back(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def draw(folder: SweepFolder) -> dict[str, bytes]:
        raise ValueError("no such axis")

    monkeypatch.setattr("lorasweep.tuning.report.page.report_files", draw)
    run_sweep(place)
    assert "its report cannot be drawn (no such axis)" in caplog.text
    assert "adapter" in place.artifacts("t000")


def test_a_copy_costs_what_has_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rung is one request, a look at a sweep without news three, however many trials there are."""
    from mlflow import MlflowClient

    calls: list[str] = []

    def counted(name: str) -> Callable[..., object]:
        method = getattr(MlflowClient, name)

        def call(client: MlflowClient, *arguments: object, **more: object) -> object:
            if any(part for part in (*arguments[1:], *more.values())):  # an empty batch sends nothing
                calls.append(name)
            return method(client, *arguments, **more)

        return call

    run_sweep(place)
    for name in vars(MlflowClient):
        if not name.startswith("_") and callable(getattr(MlflowClient, name)):
            monkeypatch.setattr(MlflowClient, name, counted(name))
    place.copy().publish()
    assert "log_batch" not in calls
    assert len(calls) <= 3, calls

    place.fill()
    runs = place.open()
    place.fill(runs=runs)
    calls.clear()
    place.fill(trial(3, [0.6, 0.5, 0.7]), runs=runs)
    assert calls == ["log_batch"]


def test_what_a_process_used_is_shown_apart() -> None:
    measured = evaluation(1, 0.5) | {
        "system": {"cpu_percent": 97.0, "memory_mb": 1200.5, "odd": float("nan")}
    }
    metrics = trial_metrics(
        trial(0, []).model_copy(update={"evaluations": (EvaluationRecord(**measured),)}),
        "accuracy",
    )
    system = {name: value for name, value in metrics[1].items() if name.startswith("system/")}
    shown = {"epoch": 0.5, "learning_rate": 1e-3, "seconds": 1.5, "samples_per_second": 100.0}
    assert system == {
        "system/cpu_percent": 97.0,
        "system/memory_mb": 1200.5,
        **{f"system/{name}": value for name, value in shown.items()},
    }


def test_runs_that_a_server_made_twice_become_one(place: Place) -> None:
    place.fill(TRIALS[0])
    for record in TRIALS:
        place.folder.write_trial(record)
    before = place.runs()
    client = connect(place.uri)
    experiment = client.get_experiment_by_name("lorasweep").experiment_id
    # What a server does that carries out a request after its caller has given it up, and asked again.
    for name in ("demo", "t000"):
        run = before[name]
        twin = client.create_run(experiment, run.info.start_time - 1, run.data.tags, run.info.run_name)
        if name == "demo":
            client.set_tag(before["t000"].info.run_id, "mlflow.parentRunId", twin.info.run_id)
            kept = {"demo": twin.info.run_id, "t000": before["t000"].info.run_id}
    place.copy().publish()
    runs = place.runs()
    assert {name: runs[name].info.run_id for name in kept} == kept
    assert runs.keys() == {"demo", *(record.id for record in TRIALS)}
    parents = {runs[record.id].data.tags["mlflow.parentRunId"] for record in TRIALS}
    assert parents == {kept["demo"]}
    assert [step for step, _, _ in place.histories()["t000"]["system/epoch"]] == [1, 2, 3, 4, 5, 6]


def test_a_run_deleted_by_hand_is_made_again(place: Place) -> None:
    copy = place.copy()
    copy.begin({}, [trial(0, [0.5])])
    wait_until(lambda: "t000" in place.shown())
    connect(place.uri).delete_run(place.runs()["t000"].info.run_id)
    copy.update(trial(0, [0.5, 0.6]))
    wait_until(lambda: "t000" in place.shown())
    place.folder.write_trial(trial(0, [0.5, 0.6, 0.7]))
    copy.end(RESULT.model_copy(update={"winner": None}), {})
    assert [step for step, _, _ in place.histories()["t000"]["system/epoch"]] == [1, 2, 3]


def test_scores_follow_the_metric_and_leave_out_what_cannot_be_drawn() -> None:
    record = trial(0, [0.5, 0.9, 0.7])
    broken = record.evaluations[1].model_copy(update={"loss": float("nan"), "train_loss": None})
    record = record.model_copy(update={"evaluations": (record.evaluations[0], broken, record.evaluations[2])})
    metrics = trial_metrics(record, "loss")
    assert [rung["score"] for rung in metrics.values()] == pytest.approx([0.5, 0.5, 0.3])
    assert "val_loss" not in metrics[2]
    assert "train_loss" not in metrics[2]
    assert "objective" not in metrics[1]
    assert trial_metrics(record, "accuracy", "accuracy") == trial_metrics(record, "accuracy")
    # Trials judged by loss, for the best accuracy: the best so far of both.
    both = trial_metrics(record, "accuracy", "loss")
    assert [rung["score"] for rung in both.values()] == pytest.approx([0.5, 0.9, 0.9])
    assert [rung["objective"] for rung in both.values()] == pytest.approx([0.5, 0.5, 0.3])


def test_params_keep_to_mlflows_limits_and_hide_passwords(place: Place) -> None:
    config = CONFIG.model_copy(update={"tracking_uri": "http://me:secret@host:5000"})
    summary = {"target_modules": {r"layer\.(q|v)$": 2}, "long": "x" * 9000, "data": {"balance": {"a": 1}}}
    params = sweep_params(config, summary)
    assert params["tracking_uri"] == "http://me:***@host:5000"
    assert params["target_modules.layer_._q_v__"] == "2"
    assert json.loads(params["data.balance"]) == {"a": 1}
    place.folder.write_config(config)
    place.folder.write_plan(summary)
    place.fill()
    stored = place.runs()["demo"].data.params
    assert len(stored["long"]) == 6000
    assert stored == params
    (kept,) = place.mlruns.glob("artifacts/lorasweep/*/artifacts/config.yaml")
    assert "secret" not in kept.read_text()


def test_the_start_and_what_the_search_adds_to_it(place: Place) -> None:
    """Metrics and a tag of the sweep's run, tags of the trials; a sweep that goes on loses what no longer holds."""
    trials = [TRIALS[0], TRIALS[1].model_copy(update={"start": 1}), TRIALS[3].model_copy(update={"start": 2})]
    for record in trials:
        place.folder.write_trial(record.model_copy(update={"state": "completed"}))
    start = StartReference(
        id="t001",
        settings={"rank": 8},
        score=0.3,
        test=TestScores(accuracy=0.7, macro_f1=0.6, loss=0.9),
        interval={"accuracy": (0.65, 0.75)},
    )
    known = {
        "start": start,
        "over_start": Gain(difference=0.09, interval=(0.05, 0.13)),
        "over_untuned": Gain(difference=0.48),
        "near": ("t003",),
    }
    place.folder.write_result(RESULT.model_copy(update=known))
    place.copy().publish()
    runs = place.runs()
    metrics = runs["demo"].data.metrics
    assert {name: value for name, value in metrics.items() if name.startswith(("start/", "over_"))} == {
        "start/score": 0.3,
        "start/test_accuracy": 0.7,
        "start/test_macro_f1": 0.6,
        "start/test_loss": 0.9,
        "start/test_accuracy_low": 0.65,
        "start/test_accuracy_high": 0.75,
        "over_start/test_accuracy": 0.09,
        "over_start/test_accuracy_low": 0.05,
        "over_start/test_accuracy_high": 0.13,
        "over_untuned/test_accuracy": 0.48,
    }
    added = (
        "The search adds +9.0 points of accuracy to its known-good start t001 (95 % interval +5.0 to +13.0)."
    )
    assert runs["demo"].data.tags["lorasweep.added"] == added
    tags = {name: run.data.tags for name, run in runs.items()}
    assert {name: tag.get("lorasweep.start") for name, tag in tags.items() if name != "demo"} == {
        "t000": None,
        "t001": "1",
        "t003": "2",
    }
    assert [name for name, tag in tags.items() if tag.get("lorasweep.near") == "true"] == ["t003"]
    note = place.note("demo") or ""
    assert "known-good start t001 70.0%, untuned default 31.0%" in note
    assert "| known-good start t001 | 70.0% | 60.0% | 0.9000 |" in note
    assert note.index("The search adds") < note.index("Tuning adds") < note.index("| test split |")
    place.folder.write_result(RESULT)
    place.copy().publish()
    again = place.runs()
    assert "lorasweep.added" not in again["demo"].data.tags
    assert "lorasweep.near" not in again["t003"].data.tags


def test_every_metric_of_an_evaluation_is_there_by_a_name_that_mlflow_takes() -> None:
    record = trial(0, [0.5, 0.9])
    scored = [
        entry.model_copy(update={"more": {"mcc": value, "f1:arts & more": 0.3}})
        for entry, value in zip(record.evaluations, (0.4, float("nan")), strict=True)
    ]
    metrics = trial_metrics(record.model_copy(update={"evaluations": tuple(scored)}), "f1:arts & more")
    assert metrics[1]["val_mcc"] == 0.4
    assert "val_mcc" not in metrics[2]
    assert (metrics[1]["val_f1_arts _ more"], metrics[2]["score"]) == (0.3, 0.3)
    tags = experiment_tags("f1:it's")
    view = json.loads(tags["mlflow.sharedViewState.trials-f1_it_s"])
    assert view["name"] == "Trials by F1 of it's"
    assert """tags.`lorasweep.metric` = "f1:it's\"""" in json.loads(view["state"])["searchFilter"]
