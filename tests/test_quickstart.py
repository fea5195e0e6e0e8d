"""The embedded default from end to end, as a newcomer runs it, in processes of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from whole_sweeps import END, ending, lorasweep, new_interpreter

from lorasweep.training.model.base_model import MINILM_HUB_ID, MINILM_PACKAGE

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["Markets rally as inflation cools", "Keeper saves late penalty in derby", "Senate passes farm bill"]

# What the model card shows, and a prediction; lorasweep itself must not be needed.
STRANGER = """
import json, sys
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoConfig, AutoTokenizer
config = AutoConfig.from_pretrained("best-adapter")
model = AutoPeftModelForSequenceClassification.from_pretrained(
    "best-adapter", id2label=config.id2label, label2id=config.label2id)
tokenizer = AutoTokenizer.from_pretrained("best-adapter")
texts = json.loads(sys.argv[1])
labels = []
for text in texts:
    inputs = tokenizer(text, "", truncation=True, return_tensors="pt")
    labels.append(model.config.id2label[int(model.eval()(**inputs).logits.argmax())])
assert not {"lorasweep"} & set(sys.modules)
print(json.dumps(labels))
"""


def fresh(place: Path, *arguments: str, warned: str = "") -> str:
    """What the command prints in an interpreter with nothing imported: its own lines, and none of the libraries'."""
    with ending(new_interpreter(place, ["-m", "lorasweep", *arguments])) as process:
        out, err = process.communicate(timeout=END)
    assert (process.returncode, err) == (0, warned), out[-2000:]
    return out


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demonstration has run."""
    place = tmp_path_factory.mktemp("quickstart")
    fresh(place, "run", "--name", "demo")
    return place


@pytest.fixture(scope="module")
def status(quickstart: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lorasweep(quickstart, "status", "demo", "--json")[0])
    return found


def test_the_winner_is_worth_the_search(status: dict[str, Any]) -> None:
    """Ten points above the untuned settings, and neither chance nor perfection."""
    assert status["state"] == "finished"
    accuracy = status["winner"]["test"]["accuracy"]
    assert 0.75 <= accuracy <= 0.97
    assert accuracy >= status["untuned"]["test"]["accuracy"] + 0.10


def test_the_search_climbs_over_its_start(status: dict[str, Any]) -> None:
    """On rows that chose the winner: by at least five of the 240."""
    start, winner = status["trials"][0], status["winner"]
    assert (start["id"], start["start"]) == ("t000", 1)
    assert winner["id"] != start["id"]
    assert winner["score"] >= start["score"] + 0.02


def test_trials_are_stopped_early(status: dict[str, Any]) -> None:
    states = [trial["state"] for trial in status["trials"]]
    assert len(states) >= 8
    assert "stopped" in states
    assert "completed" in states
    assert not {"failed", "running"} & set(states)


def test_optuna_and_mlflow_hold_the_same_trials(quickstart: Path, status: dict[str, Any]) -> None:
    """Stopped trials are PRUNED with their values; a run each in MLflow, under one parent."""
    import mlflow
    import optuna

    study = optuna.load_study(
        study_name="demo", storage=f"sqlite:///{quickstart / 'mlruns/sweeps/demo/study.db'}"
    )
    ends = {"completed": "COMPLETE", "stopped": "PRUNED"}
    assert [ends[trial["state"]] for trial in status["trials"]] == [
        trial.state.name for trial in study.trials
    ]
    assert all(trial.intermediate_values for trial in study.trials)

    client = mlflow.MlflowClient(f"sqlite:///{quickstart / 'mlruns/mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`lorasweep.sweep` = 'demo'")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert len(runs) == 1 + len(status["trials"])
    assert parents[0].data.metrics["test/accuracy"] == pytest.approx(status["winner"]["test"]["accuracy"])
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.fixture
def hub_cache(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which the hub's MiniLM, with the packaged weights, is in the cache."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    repository = tmp_path / f"models--{MINILM_HUB_ID.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / COMMIT).symlink_to(Path(spec.origin).parent / "model")
    return os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}


def test_the_export_predicts_without_lorasweep(quickstart: Path, hub_cache: dict[str, str]) -> None:
    """The card's lines, in a process that never imports lorasweep, give `lorasweep predict`'s labels."""
    lorasweep(quickstart, "export", "demo", "--out", "best-adapter")
    warned = "the adapter reads headline + short_description, and one text is given: the other is empty\n"
    given = ("--adapter", "best-adapter", "--json", *TEXTS)
    lines = fresh(quickstart, "predict", *given, warned=warned).splitlines()
    predictions = [json.loads(line) for line in lines]
    assert [set(line) for line in predictions] == [{"text", "label", "score"}] * len(TEXTS)
    stranger = subprocess.run(
        [sys.executable, "-P", "-c", STRANGER, json.dumps(TEXTS)],
        cwd=quickstart, capture_output=True, text=True, check=False, env=hub_cache,
    )  # fmt: skip
    assert stranger.returncode == 0, stranger.stderr
    assert json.loads(stranger.stdout.splitlines()[-1]) == [line["label"] for line in predictions]
