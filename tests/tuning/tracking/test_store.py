"""The store is made whole, refused in one line, and served by MLflow's user interface."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.quiet import quiet_environment
from lorasweep.tuning.tracking.store import (
    StoreAwayError,
    artifact_location,
    artifact_root,
    connect,
    hide_passwords,
    prepare_store,
    tracking_store,
)


@pytest.fixture(autouse=True)
def no_store_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's user has set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_environment_names_the_store_or_it_lies_in_mlruns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_store(None, tmp_path / "mlruns") == f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    assert tracking_store(None, Path("mlruns")) == f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert tracking_store(None, tmp_path) == "http://somewhere:5000"


@pytest.mark.parametrize("name", ["50% done", "a%20b?c=d#e {f} é:g@h"])
def test_a_path_is_no_part_of_a_url(name: str, tmp_path: Path) -> None:
    mlruns = tmp_path / name
    assert make_url(tracking_store(None, mlruns)).database == str(mlruns / "mlflow.db")
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    root = artifact_root(mlruns)
    assert get_artifact_repository(artifact_location(root)).artifact_dir == str(root)


def test_importing_the_module_does_not_import_mlflow() -> None:
    code = "import sys, lorasweep.tuning.tracking.store; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_killed_process_left_does_not_harm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a process of its own: what MLflow prints, it prints when it is imported in the middle."""
    mlruns = tmp_path / "mlruns"
    mlruns.mkdir()
    (mlruns / "README.md").write_text("kept")
    (mlruns / ".mlflow.db.making").write_bytes(b"half a database")
    uri = tracking_store(None, mlruns)
    code = (
        "import sys; from pathlib import Path; from lorasweep.tuning.tracking.store import prepare_store; "
        "[prepare_store(sys.argv[1], Path(sys.argv[2])) for _ in range(2)]"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", code, uri, str(mlruns)], cwd=tmp_path, env=environment, check=True)
    assert {path.name for path in mlruns.iterdir()} == {"README.md", "artifacts", "mlflow.db"}
    assert {path.name for path in tmp_path.iterdir()} == {"mlruns"}
    (experiment,) = connect(uri).search_experiments()
    assert experiment.artifact_location == str(mlruns / "artifacts" / "0")
    assert capfd.readouterr() == ("", "")


def refusal(uri: str, mlruns: Path) -> str:
    """The one line with which a store is refused, quickly."""
    began = time.monotonic()
    with pytest.raises(SettingsError) as caught:
        prepare_store(uri, mlruns)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 30
    return str(caught.value)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    mlruns = tmp_path / "file" / "mlruns"
    assert str(mlruns) in refusal(tracking_store(None, mlruns), mlruns)
    assert "Not a directory" in refusal(f"sqlite:///{mlruns}/mlflow.db", tmp_path / "mlruns")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"a letter to the editor\n" * 100)
    assert "file is not a database" in refusal(f"sqlite:///{path}", tmp_path)
    assert path.read_bytes().startswith(b"a letter")


def test_a_database_that_others_hold_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert "database is locked" in refusal(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)


def test_a_server_that_is_away_is_named_without_its_password(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    quiet_environment()
    line = refusal(f"http://me:secret@127.0.0.1:{free_port()}", tmp_path)
    assert "http://me:***@127.0.0.1" in line
    assert "Connection refused" in line
    assert "secret" not in line
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_what_is_away_is_told_from_what_is_no_mlflow_server(tmp_path: Path) -> None:
    """A sweep goes on without the first, and is not begun with the second."""

    class Page(BaseHTTPRequestHandler):
        status = 404

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.end_headers()
            self.wfile.write(b"<html>a page</html>")

        do_POST = do_GET  # noqa: N815 - the names are the library's

        def log_message(self, *_: object) -> None: ...

    with pytest.raises(StoreAwayError):
        prepare_store(f"http://127.0.0.1:{free_port()}", tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        for Page.status, away in ((404, False), (401, False), (200, False), (503, True)):
            with pytest.raises(SettingsError) as caught:
                prepare_store(uri, tmp_path)
            assert isinstance(caught.value, StoreAwayError) == away, Page.status
        server.shutdown()


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "/tmp/mlruns", "mongodb://host/name"])
def test_stores_that_cannot_work_are_refused(uri: str, tmp_path: Path) -> None:
    assert uri in refusal(uri, tmp_path)


def test_passwords_are_hidden() -> None:
    assert hide_passwords("a postgresql://me:pw@db:5432/x b") == "a postgresql://me:***@db:5432/x b"
    assert hide_passwords("http://host:5000/a@b sqlite:////a:b@c") == "http://host:5000/a@b sqlite:////a:b@c"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
