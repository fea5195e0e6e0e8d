"""Whole sweeps through the command line, with real Ray, Optuna and MLflow on a tiny random BERT."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from local_hub import serve
from whole_sweeps import RUN, SOON, WORDS, check_study, lorasweep, started, wait_for

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import TrialRecord

ROOT = Path(__file__).parents[3]
# What a function may choose is known only as it chooses, so its trials find the modules that are not there.
FAILING = """
def space(trial):
    trial.suggest_categorical("target_modules", TARGETS)
    return {"rank": trial.suggest_int("rank", 2, 4)}
"""


@pytest.fixture(scope="module")
def swept(place: Path) -> tuple[SweepFolder, str]:
    """A finished sweep, and what its command printed."""
    out, err = lorasweep(place, *RUN, "--trials", "3", "--epochs", "1", "--name", "tiny")
    assert err == ""
    return SweepFolder(place / "mlruns", "tiny"), out


def test_a_sweep_ends_with_a_winner(swept: tuple[SweepFolder, str]) -> None:
    folder, out = swept
    assert folder.plan()["machine"]["cores"] == len(os.sched_getaffinity(0))
    shown = json.loads(lorasweep(folder.mlruns.parent, "status", "tiny", "--json")[0])
    assert shown["score"] == shown["winner"]["score"]
    assert shown["baselines"].keys() == {"majority class", "TF-IDF + logistic regression"}
    assert set(shown["choices"].values()) <= {"t000", "t001", "t002"}
    assert (shown["name"], shown["state"], shown["metric"]) == ("tiny", "finished", "accuracy")
    assert [trial["id"] for trial in shown["trials"]] == ["t000", "t001", "t002"]
    for trial in shown["trials"]:
        assert len(trial["evaluations"]) >= 1
        assert trial["state"] in ("completed", "stopped")
        assert trial["trainable_parameters"] > 0
        assert trial["seconds"] > 0
    winner = shown["winner"]
    assert winner.keys() == {"id", "score", "rung", "settings", "test", "interval", "thresholds", "rule"}
    for name, (low, high) in winner["interval"].items():
        assert low <= winner["test"][name] <= high
    further = {"balanced_accuracy", "weighted_f1", "mcc"}
    assert winner["test"].keys() == winner["interval"].keys() == {"accuracy", "macro_f1", "loss"} | further
    assert winner["score"] == max(trial["score"] for trial in shown["trials"])
    assert winner["settings"] == next(t["settings"] for t in shown["trials"] if t["id"] == winner["id"])
    listed = json.loads(lorasweep(folder.mlruns.parent, "status", "--json")[0])
    assert [(entry["name"], entry["state"]) for entry in listed] == [("tiny", "finished")]
    # The log names what comes after the trials, and tells the time left to the end.
    after = [line for line in out.splitlines() if line.endswith(" left)")]
    steps = ("scoring", "training a linear model", "exporting", "publishing", "registering")
    told = [next(step for step in steps if f"  {step}" in line) for line in after]
    # The winner is scored, and the known-good start where that is another trial.
    assert list(dict.fromkeys(told)) == list(steps)
    assert told.count("scoring") == 1 + (winner["id"] != "t000")
    # The answer comes before what follows it.
    assert out.index(f"winner {winner['id']}: ") < out.index("training a linear model")
    assert "lorasweep export tiny" in out
    assert "models:/tiny/1 (there was no champion)" in out


def test_optuna_tells_the_same_as_the_records(swept: tuple[SweepFolder, str]) -> None:
    folder, _ = swept
    records = folder.trials()
    assert all(record.evaluations for record in records)
    check_study(folder, records)


def test_mlflow_has_a_run_for_the_sweep_and_one_for_each_trial(swept: tuple[SweepFolder, str]) -> None:
    from mlflow import MlflowClient

    folder, _ = swept
    client = MlflowClient(f"sqlite:///{folder.mlruns / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`lorasweep.sweep` = 'tiny'")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == 1
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parents[0].info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    result, records = folder.result(), folder.trials()
    assert result is not None
    assert result.winner is not None
    test = {f"test/{name}": value for name, value in result.winner.test.model_dump().items()}
    assert test.items() <= parents[0].data.metrics.items()
    assert sorted(child.data.params["learning_rate"] for child in children) == sorted(
        str(record.hyperparameters.learning_rate) for record in records
    )
    assert parents[0].data.tags["lorasweep.state"] == "finished"
    artifacts = {entry.path for entry in client.list_artifacts(parents[0].info.run_id)}
    assert {"report", "config.yaml"} <= artifacts
    champion = client.get_model_version_by_alias("tiny", "champion")
    assert champion.tags["lorasweep.trial"] == result.winner.id
    assert result.published
    assert result.registered is not None
    assert (result.registered.name, result.registered.version) == ("tiny", str(champion.version))
    # All three are among the best three, and each brings its adapter.
    for child in children:
        names = {Path(entry.path).name for entry in client.list_artifacts(child.info.run_id, "adapter")}
        assert {"adapter_config.json", "adapter_model.safetensors"} <= names


def test_the_export_scores_what_the_winner_did(swept: tuple[SweepFolder, str]) -> None:
    folder, _ = swept
    place = folder.mlruns.parent
    lorasweep(place, "export", "--out", "best")
    result, data = folder.result(), Dataset.load(folder.data)
    assert result is not None
    assert result.winner is not None
    logits = predict(load_classifier(place / "best"), data.test.text, None)
    accuracy = (logits.argmax(axis=1) == data.test.labels).mean()
    assert accuracy == pytest.approx(result.winner.test.accuracy)

    texts = ["markets rally", "a film, and an award"]
    out, err = lorasweep(place, "predict", "--adapter", "best", "--json", *texts)
    assert err == ""
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["text"] for answer in answers] == texts
    for answer in answers:
        assert answer.keys() == {"text", "label", "score"}
        assert answer["label"] in WORDS
        assert 1 / 3 <= answer["score"] <= 1

    before = sorted((place / "best").iterdir())
    _, err = lorasweep(place, "export", "--out", "best", code=2)
    assert err.count("\n") == 1
    assert "best: exists already; remove it or choose another folder" in err
    assert sorted((place / "best").iterdir()) == before


@pytest.mark.slow
def test_an_onnx_model_is_put_on_the_hub(swept: tuple[SweepFolder, str]) -> None:
    """One command, in a process of its own, with a hub on this machine."""
    pytest.importorskip("onnxruntime")
    folder, _ = swept
    place = folder.mlruns.parent
    token = "hf_made_up_and_never_shown"
    with serve() as hub:
        hub.large = True
        more = {
            "HF_ENDPOINT": hub.address,
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }
        command = ("export", "tiny", "--format", "onnx", "--push-to-hub", "news", "--out")
        out, err = lorasweep(place, *command, "onnx", **more)
        hub.refusals["/commit/"] = 403, "no more room"
        _, refused = lorasweep(place, *command, "again", code=2, **more)
    assert err == ""
    assert token not in out + refused
    assert "as an ONNX model" in out
    assert f"uploaded to {hub.address}/someone/news" in " ".join(out.split())
    files = {path.name: path.read_bytes() for path in (place / "onnx").iterdir()}
    assert hub.files.keys() == files.keys()
    assert hub.files["model.onnx"] == files["model.onnx"]
    assert refused.count("\n") == 1
    assert "403: no more room" in refused
    assert (place / "again" / "model.onnx").is_file()


@pytest.mark.slow
def test_what_comes_after_a_sweep(swept: tuple[SweepFolder, str]) -> None:
    """Report, evaluation, predictions of a file, a registered champion and its adapter, MLflow filled again."""
    folder, _ = swept
    place = folder.mlruns.parent
    lorasweep(place, "report", "tiny", "--out", "tiny.html")
    assert "<html" in (place / "tiny.html").read_text()
    lorasweep(place, "export", "tiny", "--out", "after")
    found = json.loads(lorasweep(place, "evaluate", "--adapter", "after", "--data", "rows.csv", "--json")[0])
    lorasweep(place, "predict", "--adapter", "after", "--file", "rows.csv", "--out", "labels.csv")
    rows = pd.read_csv(place / "labels.csv")
    assert len(rows) == 60
    assert (rows["label"] == rows["predicted_label"]).mean() == pytest.approx(found["accuracy"])

    out, _ = lorasweep(place, "register", "tiny", "--name", "news")
    assert "models:/news/1 is the champion" in " ".join(out.split())
    again, _ = lorasweep(place, "register", "tiny", "--name", "news")
    assert "registered before" in " ".join(again.split())
    lorasweep(place, "export", "models:/news@champion", "--out", "champion")
    texts = rows["text"].tolist()[:5]
    told = [
        lorasweep(place, "predict", "--adapter", name, "--json", *texts)[0] for name in ("after", "champion")
    ]
    assert told[0] == told[1]

    (folder.mlruns / "mlflow.db").rename(folder.mlruns / "gone.db")
    out, _ = lorasweep(place, "publish", "tiny")
    assert "MLflow has all of it" in out
    test_mlflow_has_a_run_for_the_sweep_and_one_for_each_trial(swept)


def test_a_sweep_that_has_finished_is_not_resumed(swept: tuple[SweepFolder, str]) -> None:
    folder, _ = swept
    out, err = lorasweep(folder.mlruns.parent, "resume", "tiny", code=2)
    assert (out, err) == ("", "lorasweep: sweep tiny: has finished; see: lorasweep status tiny\n")


def failing_space(place: Path, *targets: str) -> list[str]:
    """Options for a sweep whose trials adapt one of these modules."""
    (place / "mine.py").write_text(FAILING.replace("TARGETS", str(list(targets))))
    return [*RUN, "--space", "mine.py:space", "--sampler", "random", "--epochs", "1"]


@pytest.mark.slow
def test_a_trial_that_cannot_work_fails_alone(place: Path) -> None:
    """Its one line is kept, and the sweep goes on."""
    arguments = failing_space(place, "no.such", "query-value", "attention", "feed-forward")
    _, err = lorasweep(place, *arguments, "--trials", "8", "--name", "failing")
    assert err == ""
    folder = SweepFolder(place / "mlruns", "failing")
    records, result = folder.trials(), folder.result()
    assert len(records) == 8
    assert result is not None
    assert result.state == "finished"
    assert {record.state for record in records} >= {"failed", "completed"}
    for record in records:
        assert (record.state == "failed") == (record.hyperparameters.target_modules == "no.such")
        assert (record.error is not None) == (record.state == "failed")
    reasons = [record.error for record in records if record.error]
    assert all("\n" not in reason and "no.such" in reason for reason in reasons)
    check_study(folder, records)


@pytest.mark.slow
def test_trials_that_all_fail_for_one_reason_stop_the_sweep(place: Path) -> None:
    """After three in a row, with that reason; a resumed sweep tries the same ones again."""
    arguments = failing_space(place, "no.such", "no[.]such")
    _, err = lorasweep(place, *arguments, "--trials", "12", "--name", "failing-all", code=2)
    folder = SweepFolder(place / "mlruns", "failing-all")
    failed = [record for record in folder.trials() if record.state == "failed"]
    assert 3 <= len(failed) <= 6
    reasons = [record.error for record in failed]
    assert all(reason and "matches no module" in reason for reason in reasons)
    start, _, rest = err.partition(" for the same reason: ")
    assert start == "lorasweep: sweep failing-all: 3 trials in a row failed"
    assert rest.endswith("; fix that, then: lorasweep resume failing-all\n")
    assert rest.removesuffix("; fix that, then: lorasweep resume failing-all\n") in reasons
    result = folder.result()
    assert result is not None
    assert (result.state, result.winner) == ("failed", None)
    out, _ = lorasweep(place, "resume", "failing-all", code=2)
    again = {record.id: record for record in folder.trials()}
    tried = [record.id for record in failed]
    assert f"tried again after they failed: {', '.join(tried)}" in " ".join(out.split())
    assert any(again[trial].notes for trial in tried)
    assert len(again) <= max(len(failed), 4), "new trials were spent on the old reason"


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_resume_goes_on(place: Path) -> None:
    """A signal to the driver alone, as `kill` sends it, and to its whole group, as a terminal does.

    Before both, the sweep loses the reader of its output.
    """
    name, rungs = "stopped", 32
    folder = SweepFolder(place / "mlruns", name)
    size = ["--no-asha", "--trials", "4", "--epochs", "16", "--concurrency", "2", "--cpus-per-trial", "1"]
    with started(place, *RUN, *size, "--name", name) as process:
        # First somebody reads a few lines, as `head` does.
        assert process.stdout is not None
        while " rung 1/" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        assert process.stderr is not None
        assert (process.wait(timeout=SOON), process.stderr.read()) == (141, "")
    assert folder.state() == "interrupted"
    seen = []
    for kill in (os.kill, os.killpg):
        known = {trial.id: len(trial.evaluations) for trial in folder.trials()}

        def both_go_on(known: dict[str, int] = known) -> bool:
            return sum(len(trial.evaluations) >= known.get(trial.id, 0) + 3 for trial in folder.trials()) >= 2

        with started(place, "resume", name) as process:
            wait_for(both_go_on, process)
            kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=SOON)
        assert process.returncode == 130, out + err
        assert "Traceback" not in out + err
        assert f"lorasweep resume {name}" in out
        assert folder.state() == "interrupted"
        told = " ".join(out.split())
        assert " to go on" in told
        assert " running" not in told.partition("interrupted after")[2]
        result = folder.result()
        assert result is not None
        assert result.seconds >= max(trial.seconds for trial in folder.trials())
        seen.append(folder.trials())
        assert any(trial.state == "running" for trial in seen[-1]), "the sweep ended before the signal came"
        assert all(trial.state in ("running", "completed") for trial in seen[-1])

    lorasweep(place, "resume", name)
    records = {record.id: record for record in folder.trials()}
    assert folder.state() == "finished"
    assert list(records) == ["t000", "t001", "t002", "t003"]
    for record in records.values():
        assert record.state == "completed"
        assert [evaluation.rung for evaluation in record.evaluations] == list(range(1, rungs + 1))
    # What had been reached was not trained again: those evaluations are the very same, with their times.
    for trial in (trial for trials in seen for trial in trials if trial.state == "running"):
        reached = len(trial.evaluations) - 1  # the last one's checkpoint may not have been written
        assert records[trial.id].evaluations[:reached] == trial.evaluations[:reached]
    assert max(len(trial.evaluations) for trial in seen[0]) >= 3
    check_study(folder, list(records.values()))


# The cluster's own token: without these Ray takes whatever token the user happens to have.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
# Its GPUs: torch can use none of them, and says here that it can.
GPUS = {"PYTHONPATH": f"{Path(__file__).parents[1] / 'gpus_of_ray'}{os.pathsep}{ROOT}"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a Ray cluster of this machine with two GPUs that are only counted, and four cores."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Ray's sockets lie in this folder, and a socket's path may not be long.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", "--num-gpus=2", "--num-cpus=4"),
            *("--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"),
        ],
        env=os.environ | GPUS | TOKEN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        time.sleep(5)  # the node joins after its head answers
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def most_at_once(records: list[TrialRecord]) -> int:
    """The largest number of trials that ran at one time."""
    ends = [record.ended or 0.0 for record in records]
    return max(
        sum(other.started <= record.started < end for other, end in zip(records, ends, strict=True))
        for record in records
    )


@pytest.mark.slow
def test_trials_share_gpus_as_asked(cluster: str, place: Path) -> None:
    """Two on each of two: four at once."""
    name = "placed"
    lorasweep(
        place, *RUN, "--epochs", "3", "--no-asha", "--trials", "6", "--keep", "6", "--name", name,
        "--address", cluster, "--storage", str(place / "shared"), "--gpus-per-trial", "0.5",
        **GPUS, **TOKEN,
    )  # fmt: skip
    folder = SweepFolder(place / "mlruns", name)
    records = folder.trials()
    assert [record.state for record in records] == ["completed"] * 6
    assert most_at_once(records) == 4
    assert folder.plan()["resources"]["gpus_per_trial"] == 0.5
    # Trial state lies on the storage that the nodes share, and the export finds it there.
    assert all(str(place / "shared") in (record.checkpoint or "") for record in records)
    lorasweep(place, "export", name, "--trial", records[-1].id, "--out", f"best-{name}")


@pytest.mark.slow
def test_more_gpus_than_the_cluster_has_are_refused(cluster: str, place: Path) -> None:
    arguments = [*RUN, "--address", cluster, "--gpus-per-trial", "3", "--name", "greedy"]
    _, err = lorasweep(place, *arguments, code=2, **TOKEN)
    assert err == (
        "lorasweep: --gpus-per-trial 3: there are 2 GPUs; ask for at most that, or 0 to train on CPU cores\n"
    )
    assert not (place / "mlruns" / "sweeps" / "greedy").exists()


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token_says_so(cluster: str, place: Path) -> None:
    arguments = [*RUN, "--address", cluster, "--name", "stranger"]
    _, err = lorasweep(place, *arguments, code=2, RAY_AUTH_MODE="disabled")
    *_, last = err.splitlines()  # before it stand warnings of Ray's native part, which nothing silences
    assert last.startswith(f"lorasweep: --address {cluster}: ")
    assert "RAY_AUTH_MODE=token" in last
    assert "Traceback" not in err
