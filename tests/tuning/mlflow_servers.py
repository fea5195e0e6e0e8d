"""Real stores for the tests: `mlflow server`, PostgreSQL, and a line to a server that is slow, hangs or tears."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "correct-horse"


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: str) -> bool:
    """Whether something gives a page at this address."""
    try:
        with urllib.request.urlopen(address, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_until(true: Callable[[], bool], process: subprocess.Popen[Any], what: str) -> None:
    """Look until a server that was started is there."""
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None, f"{what} has ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{what} does not answer"
        time.sleep(0.1)


def loaded_model(store: str, model: str) -> Any:
    """A model of a store, as somebody loads it who has set MLflow's store."""
    import mlflow

    # Set, it stands in the environment too, where later tests and what they start would read it.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow.set_tracking_uri(store)
        try:
            return mlflow.pyfunc.load_model(model, suppress_warnings=True)
        finally:
            mlflow.set_tracking_uri(None)


class MlflowServer:
    """An `mlflow server` as somebody would run it for a team; it can be killed and started again.

    Args:
        place: a folder for its database, if it is SQLite, its artifacts and its log.
        store: the database; SQLite in the folder if None.
    """

    def __init__(self, place: Path, store: str | None = None) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._place = place
        self._store = store or f"sqlite:///{place / 'server.db'}"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """Where it listens, from start to start."""
        return self._port

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", self._store]
        command += ["--artifacts-destination", str(self._place / "artifacts")]
        # It makes processes of its own, which are to go with it: a group has one id.
        with (self._place / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._place,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: answers(f"{self.uri}/health"), self._process, "the MLflow server")

    def kill(self) -> None:
        """`kill -9` of it and whatever it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def postgres_tool(name: str) -> str | None:
    """Where a program of PostgreSQL's server is: Debian keeps them off the `PATH`."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of one's own on loopback, with a password; gives the address of an empty database."""
    initdb, server = postgres_tool("initdb"), postgres_tool("postgres")
    assert initdb is not None
    assert server is not None
    # Not pytest's folder, which only its owner may enter: PostgreSQL refuses to run as root.
    place = Path(tempfile.mkdtemp(prefix="lorasweep-postgres-"))
    user = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(place, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    secret, data, port = place / "password", place / "data", free_port()
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    make = [initdb, "-D", str(data), "-U", "sweeper", "-A", "scram-sha-256", "--pwfile", str(secret)]
    make += ["-E", "UTF8", "--no-locale", "--no-sync"]
    serve = [server, "-D", str(data), "-p", str(port), "-k", str(place), "-F"]
    serve += ["-c", "listen_addresses=127.0.0.1"]
    process = None
    try:
        subprocess.run(
            make,
            cwd=place,
            check=True,
            stdout=subprocess.DEVNULL,
            **user,
        )
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                serve,
                cwd=place,
                stdout=log,
                stderr=log,
                **user,
            )
        wait_until(lambda: _takes_connections(port), process, "PostgreSQL")
        # The driver is named: which one SQLAlchemy takes of itself has changed with its versions.
        yield f"postgresql+psycopg2://sweeper:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
            process.wait(30)
        shutil.rmtree(place)


def _takes_connections(port: int) -> bool:
    import psycopg2

    try:
        psycopg2.connect(
            host="127.0.0.1", port=port, user="sweeper", password=PASSWORD, dbname="postgres"
        ).close()
    except psycopg2.OperationalError:
        return False
    return True


class Line:
    """A TCP line to a server on loopback that can be made slow, silent, or torn before the answer comes.

    Attributes:
        delay: seconds that each answer is kept back.
        silent: requests pass, answers do not, for as long as this is set.
        torn: called with each request; the line is closed in place of the answer where it gives True.
        requests: how many have passed.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.delay = 0.0
        self.silent = threading.Event()
        self.torn: Callable[[bytes], bool] = lambda request: False
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # MLflow's client waits for an answer before it asks again, so the two ways take turns.
        tear = threading.Event()
        asked = threading.Event()
        try:
            server = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            client.close()
            return

        def answer() -> None:
            with suppress(OSError):
                while data := server.recv(65536):
                    if asked.is_set():
                        asked.clear()
                        time.sleep(self.delay)
                    while self.silent.is_set():
                        time.sleep(0.1)
                    if tear.is_set():
                        break
                    client.sendall(data)
            _hang_up(client, server)

        threading.Thread(target=answer, daemon=True).start()
        with suppress(OSError):
            while data := client.recv(65536):
                self.requests += data.startswith((b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE "))
                if self.torn(data):
                    tear.set()
                asked.set()
                server.sendall(data)
        _hang_up(client, server)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
