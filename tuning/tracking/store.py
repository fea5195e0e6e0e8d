"""MLflow's store: where it is, made whole or not at all, and the user interface on it.

Importing this module does not import MLflow, which takes seconds; the command line stays quick.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from lorasweep.training.errors import LorasweepError, SettingsError
from lorasweep.tuning.quiet import quiet_environment, silenced

if TYPE_CHECKING:
    from mlflow import MlflowClient

PASSWORD = re.compile(r"(://[^/@:\s]*):[^/@\s]+@")
NOISY = ("mlflow", "alembic", "sqlalchemy", "urllib3.connectionpool")
ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own 7 retries hold its caller for minutes when a server is away. And they repeat blindly: a run
    # whose making was answered too late is made twice. Who repeats here first asks what is there.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # The server's job runner scores answers of language models: processes that nobody here has a use for.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # Else a saved model takes along the lock file of whatever project the command happens to run in.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


class StoreAwayError(SettingsError):
    """A server that does not answer now, and may later."""


def default_tracking_uri(mlruns: Path) -> str:
    """The store where none is named: `MLFLOW_TRACKING_URI`, or SQLite in the `mlruns` folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{mlruns.resolve() / 'mlflow.db'}"


def tracking_store(uri: str | None, mlruns: Path) -> str:
    """The store that was asked for, or else the default."""
    return uri or default_tracking_uri(mlruns)


def is_server(uri: str) -> bool:
    """Whether a server keeps this store, and with it the artifacts; else this process writes both itself."""
    return uri.startswith(("http://", "https://", "databricks"))


def artifact_root(mlruns: Path) -> Path:
    """Where artifacts lie when no server keeps them."""
    return mlruns.resolve() / "artifacts"


def hide_passwords(text: str) -> str:
    """The text with the password of every `scheme://user:password@host` in it replaced by stars."""
    return PASSWORD.sub(r"\1:***@", text)


def prepare_store(uri: str, mlruns: Path) -> None:
    """Make the store if it is not there, and see that it can be written; call it before Ray starts.

    Raises:
        StoreAwayError: a server that does not answer.
        SettingsError: it cannot be made or written, or what answers is no MLflow server.
    """
    where = hide_passwords(uri)
    if not is_server(uri) and "://" not in uri.removeprefix("file://"):
        raise SettingsError(
            f"MLflow store {where}: a folder of files, which MLflow 3 no longer keeps records in; "
            "name a database or a server with --tracking-uri or MLFLOW_TRACKING_URI, such as "
            f"sqlite:///{mlruns.resolve() / 'mlflow.db'}"
        )
    try:
        with quiet():
            if not is_server(uri):
                _prepare_database(uri, artifact_root(mlruns))
            connect(uri).search_experiments(max_results=1)
    except LorasweepError:
        raise
    # Beyond MLflow's own errors come those of drivers and plugins, whose types are not known here.
    except Exception as error:
        if is_server(uri):
            advice = "start that server or name another store with --tracking-uri or MLFLOW_TRACKING_URI"
            kind = StoreAwayError if _is_away(error) else SettingsError
            raise kind(f"MLflow server {where}: gives no records ({reason(error)}); {advice}") from error
        raise SettingsError(
            f"MLflow store {where}: cannot be used ({reason(error)}); mend it, move it away, "
            "or name another with --tracking-uri or --mlruns"
        ) from error


def _is_away(error: BaseException) -> bool:
    from requests.exceptions import ConnectionError, RetryError, Timeout

    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ConnectionError | RetryError | Timeout):
            return True
        below = below.__cause__ or below.__context__
    return False


def connect(uri: str) -> MlflowClient:
    """A client of the store; MLflow is imported here, and reads its environment as it is."""
    load_mlflow()
    with quiet():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def ui_command(uri: str, mlruns: Path, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves MLflow's user interface on a database store until it is ended.

    The environment of this process is made quiet on the way; the command should inherit it.

    Args:
        uri: not a server's address: that one shows its own interface.
        host: the address to listen on; the default is seen from this machine only.
    """
    _set_environment()
    artifacts = str(artifact_root(mlruns))
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
        # Its own lines about each request would bury the address that a person needs.
        "--uvicorn-opts",
        "--log-level warning",
    ]
    command += ["--backend-store-uri", uri, "--registry-store-uri", uri]
    # Both roots are named so that nothing is put into whatever folder the command happens to run in.
    return [*command, "--default-artifact-root", artifacts, "--artifacts-destination", artifacts]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries below MLflow silent: what goes wrong is told once, by us, in one line.

    A user who sets `MLFLOW_LOGGING_LEVEL` to DEBUG or INFO wants to hear them, and does.
    """
    if os.environ.get("MLFLOW_LOGGING_LEVEL", "").upper() in ("DEBUG", "INFO"):
        yield
        return
    # Importing MLflow sets the level of its own logger; once silenced it stays so.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    with silenced(NOISY):
        yield


def reason(error: BaseException) -> str:
    """What is behind an error, as part of a line: MLflow wraps the cause two or three times."""
    while below := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = below
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return hide_passwords(lines[0][:200]) if lines else type(error).__name__


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn whatever a store raises into one line that names it."""
    try:
        with quiet():
            yield
    except LorasweepError:
        raise
    # Databases, servers and artifact stores each raise errors of their own.
    except Exception as error:
        where, why = hide_passwords(uri), reason(error).rstrip(".")
        raise SettingsError(
            f"MLflow at {where}: {why}; check the name and the store (--tracking-uri)"
        ) from error


def _prepare_database(uri: str, artifacts: Path) -> None:
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    url.get_dialect()  # an unknown kind of database is refused before anything is written
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=artifacts):
            pass
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            path = Path(str(url.database)).resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.parent):
                if not path.exists():
                    _create_sqlite(path, artifacts)
    except OSError as error:
        name = error.filename or artifacts
        raise SettingsError(
            f"{name}: cannot be written ({error.strerror}); mend the rights, "
            "or name another place with --mlruns or --tracking-uri"
        ) from error
    _check_writable(uri)
    _open_store(uri, artifacts)


def _create_sqlite(path: Path, artifacts: Path) -> None:
    # The schema takes seconds, and a process killed meanwhile leaves a file that no later one can use: so it
    # is made under another name, and what an earlier attempt left there is dropped.
    beside = path.with_name(f".{path.name}.making")
    beside.unlink(missing_ok=True)
    beside.with_name(f"{beside.name}-journal").unlink(missing_ok=True)
    _open_store(f"sqlite:///{beside}", artifacts)
    beside.replace(path)


def _open_store(uri: str, artifacts: Path) -> None:
    load_mlflow()
    # Not through a client, which would put the default experiment's artifacts into ./mlruns.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, str(artifacts)).engine.dispose()


def _check_writable(uri: str) -> None:
    # MLflow asks a database that does not answer ten times over two minutes; a person waits for this.
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.rollback()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that prepare a store in it."""
    with FileLock(folder / ".mlflow.lock"):
        yield


def load_mlflow() -> None:
    """Import MLflow, quietly and with its environment as it is to be here."""
    _set_environment()
    # Importing MLflow makes its logger talk again, so this has a silence of its own.
    with quiet():
        import mlflow  # noqa: F401


def _set_environment() -> None:
    quiet_environment()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
