"""MLflow's store: where it is, and its database made whole or not at all.

Importing this module does not import MLflow, which takes seconds.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from filelock import FileLock

from lorasweep.training.errors import LorasweepError, SettingsError
from lorasweep.tuning.quiet import quiet_environment, silenced
from lorasweep.tuning.record.files import sqlite_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

PASSWORD = re.compile(r"(://[^/@:\s]*):[^/@\s]+@")
NOISY = ("mlflow", "alembic", "sqlalchemy", "urllib3.connectionpool")
ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own 7 retries take minutes when a server is away. And they repeat blindly: a run whose creation was
    # answered too late is created twice. Here each retry first looks for what is there.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # The server's job runner scores answers of language models: processes that nobody needs here.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # Else a saved model includes the lock file of whatever project the command happens to run in.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


class StoreAwayError(SettingsError):
    """A server that does not answer now but may later."""


def tracking_store(uri: str | None, mlruns: Path) -> str:
    """The store's address: as named, or else `MLFLOW_TRACKING_URI`, or else SQLite in the `mlruns` folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(mlruns / "mlflow.db")


def is_server(uri: str) -> bool:
    """Whether a server keeps this store and its artifacts; else this process writes both itself."""
    return uri.startswith(("http://", "https://", "databricks"))


def artifact_root(mlruns: Path) -> Path:
    """Folder of the artifacts where no server keeps them."""
    return mlruns.resolve() / "artifacts"


def artifact_location(folder: Path) -> str:
    """A local folder as MLflow wants it named: it unquotes paths, so that one with `%20` in it has to be a URI."""
    return str(folder) if unquote(str(folder)) == str(folder) else folder.as_uri()


def hide_passwords(text: str) -> str:
    """The text with the password of every `scheme://user:password@host` in it replaced by stars."""
    return PASSWORD.sub(r"\1:***@", text)


def prepare_store(uri: str, mlruns: Path) -> None:
    """Make the store if there is none, and check that it can be written. Call it before Ray starts.

    Raises:
        StoreAwayError: a server that does not answer.
        SettingsError: it cannot be made or written, or what answers is no MLflow server.
    """
    where = hide_passwords(uri)
    if not is_server(uri) and "://" not in uri.removeprefix("file://"):
        raise SettingsError(
            f"MLflow store {where}: a folder of files, which MLflow 3 no longer supports; "
            "name a database or a server with --tracking-uri or MLFLOW_TRACKING_URI, such as "
            f"{sqlite_url(mlruns / 'mlflow.db')}"
        )
    try:
        with quiet():
            if not is_server(uri):
                _prepare_database(uri, artifact_root(mlruns))
            connect(uri).search_experiments(max_results=1)
    except LorasweepError:
        raise
    # Beside MLflow's own errors, those of database drivers and plugins.
    except Exception as error:
        from requests.exceptions import ConnectionError, RetryError, Timeout

        away = any(isinstance(cause, ConnectionError | RetryError | Timeout) for cause in _causes(error))
        kind, advice = (
            SettingsError,
            "repair it, move it away, or name another with --tracking-uri or --mlruns",
        )
        if is_server(uri):
            kind = StoreAwayError if away else SettingsError
            advice = "start that server, or name another store with --tracking-uri or MLFLOW_TRACKING_URI"
        raise kind(f"MLflow store {where}: cannot be used ({reason(error)}); {advice}") from error


def connect(uri: str) -> MlflowClient:
    """A client of the store."""
    load_mlflow()
    with quiet():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence MLflow and the libraries below it: lorasweep reports what goes wrong, once, in one line.

    Unless `MLFLOW_LOGGING_LEVEL` is DEBUG or INFO.
    """
    if os.environ.get("MLFLOW_LOGGING_LEVEL", "").upper() in ("DEBUG", "INFO"):
        yield
        return
    # Importing MLflow sets the level of its own logger; once silenced it stays so.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    with silenced(NOISY):
        yield


def reason(error: BaseException) -> str:
    """The cause of an error, as part of a line: MLflow wraps it two or three times."""
    *_, error = _causes(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return hide_passwords(lines[0][:200]) if lines else type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and, one below the other, those that it was raised from."""
    below: BaseException | None = error
    while below is not None:
        yield below
        below = below.__cause__ or (None if below.__suppress_context__ else below.__context__)


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
    url.get_dialect()  # refuses an unknown kind of database before anything is written
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=artifacts):
            pass
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            path = Path(str(url.database)).resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _create_sqlite(path, artifacts)
    except OSError as error:
        name = error.filename or artifacts
        raise SettingsError(
            f"{name}: cannot be written ({error.strerror}); change its permissions, "
            "or name another place with --mlruns or --tracking-uri"
        ) from error
    _check_writable(uri)
    _open_store(uri, artifacts)


def _create_sqlite(path: Path, artifacts: Path) -> None:
    # The schema takes seconds, and a process killed meanwhile would leave a file that no later one can use: so
    # it is made under another name.
    beside, lock = path.with_name(f".{path.name}.making"), path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        if not path.exists():
            for left in path.parent.glob(f"{beside.name}*"):
                left.unlink()
            _open_store(sqlite_url(beside), artifacts)
            beside.replace(path)
    # Whoever waits for this file, or makes another, finds the database and does nothing.
    with suppress(OSError):
        lock.unlink()


def _open_store(uri: str, artifacts: Path) -> None:
    load_mlflow()
    # A client would put the default experiment's artifacts into ./mlruns.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, str(artifacts)).engine.dispose()


def _check_writable(uri: str) -> None:
    # MLflow tries a database that does not answer ten times in two minutes, and a person waits for this.
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.rollback()


def load_mlflow() -> None:
    """Import MLflow, quietly and with its environment set."""
    set_environment()
    # Importing MLflow resets its logger, so this has a silence of its own.
    with quiet():
        import mlflow  # noqa: F401


def set_environment() -> None:
    """Set the environment variables that MLflow reads when it is imported or started."""
    quiet_environment()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
