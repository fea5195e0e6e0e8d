"""Winners become versions: who is champion, nothing twice, and what a version holds taken along."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_adapters import COLUMNS, LABELS, PAIR, TEXT, export_adapter
from mlflow_servers import loaded_model
from whole_sweeps import lorasweep

from lorasweep.training.data.dataset import Dataset, Texts, fingerprint
from lorasweep.training.errors import ExportError, LorasweepError, ModelError, SettingsError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult, TestScores, Winner
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.tracking.models import registry
from lorasweep.tuning.tracking.models.fetch import fetch_adapter
from lorasweep.tuning.tracking.models.packing import pack
from lorasweep.tuning.tracking.models.registry import Registered, register
from lorasweep.tuning.tracking.store import connect, prepare_store

NAME = "headline topics"


@pytest.fixture(scope="module")
def adapter(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_adapter(tiny_base("bert"), tmp_path_factory.mktemp("adapter") / "best")


@pytest.fixture(scope="module")
def packed(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "model"
    pack(adapter, out)
    return out


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The schema takes seconds, so the tests copy it."""
    mlruns = tmp_path_factory.mktemp("store") / "mlruns"
    prepare_store(f"sqlite:///{mlruns / 'mlflow.db'}", mlruns)
    return mlruns / "mlflow.db"


def split(text: list[str]) -> Texts:
    return Texts(text, PAIR[: len(text)], np.arange(len(text)) % len(LABELS))


def rows(test: list[str] = TEXT[:9], train: list[str] = TEXT[9:40]) -> Dataset:
    splits = {"train": split(train), "validation": split(TEXT[40:50]), "test": split(test)}
    return Dataset(
        **splits,
        label_names=LABELS,
        text_columns=COLUMNS,
        label_column="topic",
        source="rows.csv",
        fingerprint=fingerprint(splits, LABELS),
        rows_read=100,
        dropped={},
        left_out_classes={},
    )


class Place:
    """An mlruns folder with a store; sweeps that have ended can be put into it."""

    def __init__(self, root: Path, uri: str | None = None) -> None:
        self.mlruns = root / "mlruns"
        self.uri = uri or f"sqlite:///{self.mlruns / 'mlflow.db'}"
        self.client = connect(self.uri)
        location = None if uri else str(self.mlruns / "artifacts" / "lorasweep")
        self.experiment = self.client.create_experiment("lorasweep", artifact_location=location)

    def sweep(
        self,
        name: str,
        accuracy: float,
        loss: float = 1.0,
        metric: str = "accuracy",
        data: Dataset | None = None,
    ) -> tuple[SweepFolder, str]:
        """A finished sweep and its winner's run."""
        folder = SweepFolder(self.mlruns, name)
        folder.create(SweepConfig(name=name))
        (data or rows()).save(folder.data)
        scores = TestScores(accuracy=accuracy, macro_f1=accuracy - 0.1, loss=loss)
        settings = {"rank": 8, "target_modules": "a.*b", "learning_rate": 0.00021637}
        winner = Winner(id="t007", score=0.9, settings=settings, test=scores)
        folder.write_plan({"searched": list(settings)})
        folder.write_result(
            SweepResult.model_validate({"state": "finished", "metric": metric, "winner": winner})
        )
        tags = {"lorasweep.sweep": name, "mlflow.lorasweep.id": f"id-of-{name}"}
        parent = self.client.create_run(
            self.experiment, tags=tags | {"lorasweep.kind": "sweep", "lorasweep.winner": "t007"}
        )
        child = tags | {"lorasweep.trial": "t007", "mlflow.parentRunId": parent.info.run_id}
        run = self.client.create_run(self.experiment, tags=child)
        self.client.set_terminated(run.info.run_id)
        return folder, str(run.info.run_id)

    def versions(self) -> dict[str, Any]:
        found = self.client.search_model_versions(f"name = '{NAME}'")
        return {
            str(version.version): self.client.get_model_version(NAME, str(version.version))
            for version in found
        }

    def aliases(self) -> dict[str, str]:
        found = self.client.get_registered_model(NAME).aliases
        return {alias: str(version) for alias, version in found.items()}


@pytest.fixture
def place(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlruns" / "artifacts").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    return Place(tmp_path)


@pytest.fixture
def quick(
    place: Place, adapter: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Registered]:
    """`register` of a new sweep, with what was packed once for all; each sweep has weights of its own."""
    monkeypatch.setattr(registry, "pack", lambda _, out, **options: shutil.copytree(packed, out))

    def make(name: str, accuracy: float, **more: Any) -> Registered:
        folder, run = place.sweep(name, accuracy, **more)
        monkeypatch.setattr(registry, "sha256", lambda path: f"weights of {name}")
        return register(SweepRecord(folder), place.uri, NAME, adapter, run)

    return make


def labels(adapter: Path) -> list[str]:
    logits = predict(load_classifier(adapter, "cpu"), TEXT)
    return [LABELS[index] for index in logits.argmax(axis=1)]


def test_the_first_version_is_the_champion_and_predicts(
    place: Place, adapter: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    folder, run = place.sweep("first", 0.8)
    before = mlflow.get_tracking_uri()
    capfd.readouterr()
    found = register(SweepRecord(folder), place.uri, NAME, adapter, run)
    assert (found.version, found.alias, found.created) == ("1", "champion", True)
    assert found.text() == (
        f"models:/{NAME}/1 is the champion: there was no champion; its base model is a folder of this machine, "
        "so it can only be served here"
    )
    assert capfd.readouterr() == ("", "")
    assert mlflow.get_tracking_uri() == before
    assert list(Path.cwd().iterdir()) == []

    version = place.versions()["1"]
    assert (version.run_id, version.aliases, version.status) == (run, ["champion"], "READY")
    wanted = {
        "lorasweep.sweep": "first",
        "lorasweep.trial": "t007",
        "mlflow.lorasweep.id": "id-of-first",
        "lorasweep.decision": "champion",
        "lorasweep.metric": "accuracy",
        "lorasweep.test_accuracy": "0.8",
        "lorasweep.test_loss": "1.0",
        "lorasweep.fingerprint": rows().fingerprint,
        "lorasweep.hyperparameters": "rank 8, targets a.*b, rate 2.2e-4",
        "lorasweep.base_model": "minilm",
    }
    assert wanted.items() <= version.tags.items()
    assert version.description.startswith(
        "Trial t007 of sweep first (minilm, trained on rows.csv): test accuracy **80.0%**. Validation accuracy 90.0%: "
        "rank 8, target\\_modules a.\\*b, learning\\_rate 2.2e-4"
    )
    assert "| winner | 80.0% | 70.0% | 1.0000 |" in version.description
    (output,) = place.client.get_run(run).outputs.model_outputs
    logged = place.client.get_logged_model(output.model_id)
    assert (str(logged.status), logged.source_run_id) == ("READY", run)
    assert logged.params["target_modules"] == "a.*b"
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": NAME, "version": 1}]
    for uri in (
        f"models:/{NAME}@champion",
        f"models:/{NAME}/1",
        f"models:/{output.model_id}",
        f"runs:/{run}/classifier",
    ):
        assert loaded_model(place.uri, uri).predict(TEXT)["label"].tolist() == labels(adapter)
    assert loaded_model(place.uri, f"models:/{NAME}@champion").metadata.run_id == run
    stored = [path.suffix for path in place.mlruns.joinpath("artifacts").rglob("*") if path.is_file()]
    assert not {".pkl", ".bin", ".pt", ".pickle"} & set(stored)


def test_who_beats_the_champion_on_the_same_rows_takes_its_place(
    place: Place, quick: Callable[..., Registered]
) -> None:
    assert quick("one", 0.8).alias == "champion"
    worse = quick("two", 0.7)
    assert (worse.version, worse.alias) == ("2", "challenger")
    assert worse.reason == "test accuracy 0.7000, where version 1, the champion, had 0.8000 on the same rows"
    assert quick("three", 0.8).alias == "challenger"  # equal is not better
    assert place.aliases() == {"champion": "1", "challenger": "3"}
    better = quick("four", 0.8000001)
    assert (better.alias, better.version) == ("champion", "4")
    assert place.aliases() == {"champion": "4", "challenger": "3"}
    tags = place.versions()["4"].tags
    assert (tags["lorasweep.champion_then"], tags["lorasweep.champion_score"]) == ("1", "0.8")
    assert tags["lorasweep.test_accuracy"] == "0.8000001"
    assert tags["lorasweep.reason"] == better.reason
    assert quick("five", 0.5, loss=0.9, metric="loss").alias == "champion"  # of a loss the lower is better
    assert quick("six", 0.9, loss=0.95, metric="loss").alias == "challenger"
    assert place.aliases() == {"champion": "5", "challenger": "6"}


def test_only_the_test_rows_must_be_the_same(place: Place, quick: Callable[..., Registered]) -> None:
    quick("one", 0.5)
    fewer = rows(train=TEXT[9:20])
    assert fewer.fingerprint != rows().fingerprint
    assert quick("fewer", 0.6, data=fewer).alias == "champion"
    other = quick("other", 0.9, data=rows(test=TEXT[1:10]))
    assert other.alias == "challenger"
    assert other.reason == "version 2, the champion, was tested on other rows, so the two cannot be compared"
    other_labels = replace(rows(), label_names=(*LABELS[:2], "sport"), fingerprint="")
    splits = other_labels.splits()
    named = replace(other_labels, fingerprint=fingerprint(splits, other_labels.label_names))
    assert quick("labels", 0.9, data=named).alias == "challenger"
    assert place.aliases()["champion"] == "2"


def test_a_champion_of_somebody_elses_is_left_alone(place: Place, quick: Callable[..., Registered]) -> None:
    place.client.create_registered_model(NAME)
    place.client.create_model_version(NAME, "s3://bucket/model")
    place.client.set_registered_model_alias(NAME, "champion", "1")
    assert "cannot be compared" in quick("one", 0.9).reason
    assert place.aliases() == {"champion": "1", "challenger": "2"}
    place.client.delete_registered_model_alias(NAME, "champion")
    assert quick("two", 0.1).alias == "champion"


def test_the_same_winner_is_registered_once(
    place: Place, quick: Callable[..., Registered], adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = quick("one", 0.8)
    quick("two", 0.9)
    monkeypatch.setattr(registry, "sha256", lambda path: "weights of one")
    run = place.versions()["1"].run_id
    again = register(SweepRecord(SweepFolder(place.mlruns, "one")), place.uri, NAME, adapter, run)
    assert again == first.model_copy(update={"created": False})
    assert "registered before" in again.text()
    assert set(place.versions()) == {"1", "2"}
    assert place.aliases()["champion"] == "2"
    assert len(place.client.search_logged_models([place.experiment])) == 2
    # A version that was registered before versions said so much is completed; a person's words stay.
    place.client.delete_model_version_tag(NAME, "1", "lorasweep.hyperparameters")
    for before, after in (("trial t007 of sweep one", "Trial t007"), ("ask Ada first", "ask Ada first")):
        place.client.update_model_version(NAME, "1", before)
        register(SweepRecord(SweepFolder(place.mlruns, "one")), place.uri, NAME, adapter, run)
        completed = place.versions()["1"]
        assert completed.description.startswith(after)
        assert completed.tags["lorasweep.hyperparameters"].startswith("rank 8")
    whole = register(
        SweepRecord(SweepFolder(place.mlruns, "one")), place.uri, NAME, adapter, run, self_contained=True
    )
    assert (whole.version, whole.note) == ("3", "")
    monkeypatch.setattr(registry, "sha256", lambda path: "one trained on")
    assert (
        register(SweepRecord(SweepFolder(place.mlruns, "one")), place.uri, NAME, adapter, run).version == "4"
    )


def test_what_was_cut_off_is_made_whole(
    place: Place, quick: Callable[..., Registered], adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    quick("one", 0.8)

    def fail(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("the line was cut")

    folder, run = place.sweep("two", 0.9)
    monkeypatch.setattr(registry, "sha256", lambda path: "weights of two")
    for method, left in (("log_model_artifacts", {"1"}), ("set_registered_model_alias", {"1", "2"})):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, method, fail)
            with pytest.raises(SettingsError, match="the line was cut") as caught:
                register(SweepRecord(folder), place.uri, NAME, adapter, run)
        assert "\n" not in str(caught.value)
        assert set(place.versions()) == left
        assert place.aliases() == {"champion": "1"}
    statuses = [str(model.status) for model in place.client.search_logged_models([place.experiment])]
    assert sorted(statuses) == ["FAILED", "READY", "READY"]
    assert register(SweepRecord(folder), place.uri, NAME, adapter, run).alias == "champion"
    assert (set(place.versions()), place.aliases()) == ({"1", "2"}, {"champion": "2"})
    place.client.delete_model_version_tag(NAME, "2", "lorasweep.decision")
    again = register(SweepRecord(folder), place.uri, NAME, adapter, run)
    assert (again.alias, place.versions()["2"].tags["lorasweep.decision"]) == ("champion", "champion")
    assert "0.8000" in again.reason


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "a:b", "news@2", "it's", "..", "models:/news", "x" * 251, "a\nb"]
)
def test_names_that_cannot_work_are_refused(place: Place, adapter: Path, name: str) -> None:
    folder, run = place.sweep("one", 0.8)
    with pytest.raises(SettingsError, match="registered model") as caught:
        register(SweepRecord(folder), place.uri, name, adapter, run)
    assert "\n" not in str(caught.value)
    assert place.client.search_registered_models() == []


def test_a_sweep_without_a_winner_and_a_store_without_the_run(place: Place, adapter: Path) -> None:
    folder, run = place.sweep("one", 0.8)
    with pytest.raises(SettingsError, match="Run with id=0123 not found; check"):
        register(SweepRecord(folder), place.uri, NAME, adapter, "0123")
    folder.write_result(SweepResult(state="interrupted", metric="accuracy"))
    with pytest.raises(SettingsError, match="has no winner to register"):
        register(SweepRecord(folder), place.uri, NAME, adapter, run)


def test_an_adapter_is_taken_along_by_any_of_its_names(place: Place, adapter: Path, tmp_path: Path) -> None:
    folder, run = place.sweep("one", 0.8)
    register(SweepRecord(folder), place.uri, NAME, adapter, run)
    place.client.log_artifacts(run, str(adapter), "adapter")
    parent = place.client.get_run(run).data.tags["mlflow.parentRunId"]
    for number, uri in enumerate(
        (f"models:/{NAME}@champion", f"models:/{NAME}/1", f"runs:/{run}", f"runs:/{parent}")
    ):
        out = tmp_path / str(number) / "best"
        assert fetch_adapter(uri, place.uri, out) == out
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {
            path.name: path.read_bytes() for path in adapter.iterdir()
        }
        assert labels(out) == labels(adapter)
        assert [path.name for path in out.parent.iterdir()] == ["best"]
    with pytest.raises(ExportError, match="exists already"):
        fetch_adapter(f"runs:/{run}", place.uri, tmp_path / "0")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"models:/{NAME}@nobody", "alias nobody not found; check"),
        (f"models:/{NAME}/7", "not found; check"),
        ("models:/nothing/1", "not found; check"),
        ("runs:/0123", "Run with id=0123 not found; check"),
        ("models:/x/../../y", "not the address of a model in MLflow"),
        ("runs:/0123/../../etc", "not the address of a model in MLflow"),
        ("s3://bucket/model", "not the address of a model in MLflow"),
    ],
)
def test_addresses_that_lead_nowhere(place: Place, tmp_path: Path, uri: str, message: str) -> None:
    place.client.create_registered_model(NAME)
    with pytest.raises(LorasweepError, match=message) as caught:
        fetch_adapter(uri, place.uri, tmp_path / "deep" / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "deep").exists()


def test_only_an_adapters_own_files_are_taken_along(place: Place, adapter: Path, tmp_path: Path) -> None:
    _, run = place.sweep("one", 0.8)
    with pytest.raises(ExportError, match="holds no adapter"):
        fetch_adapter(f"runs:/{run}", place.uri, tmp_path / "out")
    place.client.log_artifacts(run, str(adapter), "adapter")
    (stored,) = place.mlruns.glob(f"artifacts/lorasweep/{run}/artifacts/adapter")
    for name in ("adapter_model.bin", "evil.pkl", "modeling.py"):
        (stored / name).write_bytes(b"harm")
    (stored / "below").mkdir()
    (stored / "below" / "config.json").write_text("{}")
    fetch_adapter(f"runs:/{run}", place.uri, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in adapter.iterdir()}
    (stored / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights in adapter_model\.safetensors"):
        fetch_adapter(f"runs:/{run}", place.uri, tmp_path / "other")
    assert not (tmp_path / "other").exists()


class Hostile(http.server.BaseHTTPRequestHandler):
    """A server whose list of artifacts leads out of the folder that they are put into."""

    names: tuple[str, ...] = ()

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        inside = query.get("path", ["adapter"])[0].endswith("adapter")
        files = [{"path": name, "is_dir": False, "file_size": 2} for name in self.names if inside]
        body = json.dumps({"files": files}).encode() if "path" in query else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts/x"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["../../evil.json", "/tmp/lorasweep-evil.json", "a/../../../evil.json"])
def test_a_store_cannot_write_outside_the_folder(
    place: Place, hostile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place.client.create_registered_model(NAME)
    place.client.create_model_version(NAME, hostile)
    monkeypatch.setattr(Hostile, "names", ("adapter_config.json", "config.json", name))
    before = {path for path in tmp_path.rglob("*") if "mlflow.db" not in path.name}
    with pytest.raises(LorasweepError) as caught:
        fetch_adapter(f"models:/{NAME}/1", place.uri, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert {path for path in tmp_path.rglob("*") if "mlflow.db" not in path.name} == before
    assert not Path("/tmp/lorasweep-evil.json").exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`serve(health, *command, **environment)`: the address of an MLflow server, which is ended afterwards."""
    running: list[subprocess.Popen[bytes]] = []

    def start(health: str, *command: str, **environment: str) -> str:
        port = str(free_port())
        # Its own group: `models serve` starts a server of its own, which must go too.
        # MLflow finds uvicorn on the path, as in an activated environment.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        arguments = [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", port]
        log = (tmp_path / "server.log").open("wb")
        server = subprocess.Popen(
            arguments,
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | environment | {"PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        running.append(server)
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + 180
        while server.poll() is None and time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{address}{health}", timeout=10).close()
            except OSError:
                time.sleep(0.3)
            else:
                return address
        pytest.fail((tmp_path / "server.log").read_text())

    yield start
    for server in running:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)


@pytest.mark.slow
def test_a_champion_is_served(place: Place, adapter: Path, serve: Callable[..., str], tmp_path: Path) -> None:
    folder, run = place.sweep("one", 0.8)
    register(SweepRecord(folder), place.uri, NAME, adapter, run)
    command = ("models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local")
    address = serve("/ping", *command, MLFLOW_TRACKING_URI=place.uri)
    texts = TEXT[:20]
    out, _ = lorasweep(tmp_path, "predict", "--adapter", str(adapter), "--json", *texts)
    expected = [json.loads(line) for line in out.splitlines()]
    assert len({entry["label"] for entry in expected}) > 1
    for body in (
        {"inputs": texts},
        {"dataframe_records": [{"headline": text, "summary": ""} for text in texts]},
        {"dataframe_split": {"columns": ["id", "text"], "data": [[1, text] for text in texts]}},
        {"instances": [{"headline": text, "summary": ""} for text in texts]},
    ):
        found = post(address, body)["predictions"]
        assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
        np.testing.assert_allclose(
            [entry["score"] for entry in found], [entry["score"] for entry in expected], atol=1e-4
        )
    found = post(address, {"inputs": texts[:1], "params": {"probabilities": True}})["predictions"]
    assert sum(value for key, value in found[0].items() if key not in ("label", "score")) == pytest.approx(1)
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(address, {"dataframe_records": [{"body": "film"}]})
    assert refused.value.code == 400
    assert "no column with texts" in json.loads(refused.value.read())["message"]


@pytest.mark.slow
@pytest.mark.parametrize("artifacts", ["--artifacts-destination", "--default-artifact-root"])
def test_a_server_keeps_the_registry(
    tmp_path: Path, empty_store: Path, adapter: Path, serve: Callable[..., str], artifacts: str
) -> None:
    """With artifacts that go through the server, and with those that it leaves to its clients."""
    shutil.copy(empty_store, tmp_path / "server.db")
    uri = serve(
        "/health",
        "server",
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{tmp_path / 'server.db'}",
        artifacts,
        str(tmp_path / "kept"),
    )
    (tmp_path / "mlruns").mkdir()
    place = Place(tmp_path, uri)
    one, run = place.sweep("one", 0.8)
    first = register(SweepRecord(one), uri, NAME, adapter, run)
    assert register(SweepRecord(one), uri, NAME, adapter, run) == first.model_copy(update={"created": False})
    two, other_run = place.sweep("two", 0.9)
    second = register(SweepRecord(two), uri, NAME, adapter, other_run)
    assert (first.version, first.alias, second.version, second.alias) == ("1", "champion", "2", "champion")
    assert place.aliases() == {"champion": "2"}
    assert loaded_model(place.uri, f"models:/{NAME}@champion").predict(TEXT)["label"].tolist() == labels(
        adapter
    )
    assert labels(fetch_adapter(f"models:/{NAME}@champion", uri, tmp_path / "out")) == labels(adapter)
    place.client.log_artifacts(run, str(adapter), "adapter")
    assert labels(fetch_adapter(f"runs:/{run}", uri, tmp_path / "run")) == labels(adapter)
    (output,) = place.client.get_run(other_run).outputs.model_outputs
    logged = place.client.get_logged_model(output.model_id)
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": NAME, "version": 2}]
