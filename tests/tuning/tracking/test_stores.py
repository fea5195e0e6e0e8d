"""Whole sweeps on real MLflow servers, on SQLite and PostgreSQL, that are slow, hang, are killed or away."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_servers import PASSWORD, Line, MlflowServer, postgres, postgres_tool
from whole_sweeps import END, RUN, lorasweep, started, wait_for

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.tracking.store import connect

pytestmark = pytest.mark.slow

SMALL = [*RUN, "--trials", "4", "--epochs", "2", "--concurrency", "1", "--cpus-per-trial", "1", "--keep", "2"]
# The names under which MLflow shows what an evaluation holds.
NAMES = {"val_accuracy": "accuracy", "val_macro_f1": "macro_f1", "val_loss": "loss", "system/epoch": "epoch"}
STATUS = {"completed": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "running": "KILLED"}
NAMED = {"completed": "completed", "stopped": "stopped at ", "failed": "failed at ", "running": "interrupted"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server on SQLite. A test that kills it starts it again."""
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def line(server: MlflowServer) -> Iterator[Line]:
    line = Line(server.port)
    yield line
    line.silent.clear()
    line.close()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    if postgres_tool("initdb") is None:
        pytest.skip("PostgreSQL is not installed here (apt-get install postgresql)")
    with postgres() as uri:
        yield uri


def runs_of(name: str, uri: str) -> list[Any]:
    """All runs of a sweep that the store shows."""
    client = connect(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`lorasweep.sweep` = '{name}'"))


def dump(name: str, uri: str) -> dict[str, Any]:
    """Everything that the store holds of a sweep: run → params, tags, metrics with their history, files."""
    client = connect(uri)
    found: dict[str, Any] = {}
    for run in runs_of(name, uri):
        run_id = run.info.run_id
        found[run_id] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": {
                key: sorted((p.step, p.timestamp, p.value) for p in client.get_metric_history(run_id, key))
                for key in run.data.metrics
            },
            "files": files_of(run_id, uri),
        }
    return found


def files_of(run_id: str, uri: str, path: str | None = None) -> dict[str, int]:
    """File → size, of a run's artifacts."""
    files: dict[str, int] = {}
    for entry in connect(uri).list_artifacts(run_id, path):
        files |= files_of(run_id, uri, entry.path) if entry.is_dir else {entry.path: entry.file_size}
    return files


def adapter_files(folder: Path | None) -> dict[str, int]:
    """What a run should keep of an adapter's folder: file → size."""
    files = folder.rglob("*") if folder else ()
    return {f"adapter/{path.relative_to(folder)}": path.stat().st_size for path in files if path.is_file()}


def check_store(folder: SweepFolder, uri: str) -> None:
    """The store holds what the sweep's folder does: no more, no less, nothing twice."""
    records, state = folder.trials(), folder.state()
    held = dump(folder.name, uri)
    (parent_id,) = [run_id for run_id, run in held.items() if run["tags"]["lorasweep.kind"] == "sweep"]
    parent = held.pop(parent_id)
    assert parent["status"] == ("FINISHED" if state == "finished" else "KILLED")
    assert {"config.yaml", "space.yaml"} <= parent["files"].keys()
    assert sorted(run["tags"]["lorasweep.trial"] for run in held.values()) == [
        record.id for record in records
    ]
    children = {run["tags"]["lorasweep.trial"]: run for run in held.values()}
    result = folder.result()
    winner = result.winner.id if state == "finished" and result and result.winner else None
    best = {path.name: path for path in (folder.path / "best").glob("t*")}
    for record in records:
        child = children[record.id]
        assert child["tags"]["mlflow.parentRunId"] == parent_id
        assert child["status"] == STATUS[record.state]
        ended = "winner" if record.id == winner else NAMED[record.state]
        assert child["name"].startswith(f"{record.id} {ended}")
        assert child["name"].endswith(f" ({folder.name})")
        assert child["params"]["rank"] == str(record.hyperparameters.rank)
        assert child["params"]["learning_rate"] == str(record.hyperparameters.learning_rate)
        for name, key in NAMES.items():
            told = [(step, value) for step, _, value in child["metrics"].get(name, [])]
            assert told == [(entry.rung, getattr(entry, key)) for entry in record.evaluations]
        sent = {path: size for path, size in child["files"].items() if path.startswith("adapter/")}
        assert sent == adapter_files(best.get(record.id))
    if state != "finished":
        return
    assert result is not None
    assert result.winner is not None
    assert len(best) >= 2
    assert {"report/report.html", "report/trials.csv"} <= parent["files"].keys()
    assert [value for _, _, value in parent["metrics"]["test/accuracy"]] == [result.winner.test.accuracy]
    assert parent["tags"]["lorasweep.winner"] == result.winner.id
    assert result.winner.id in parent["tags"]["mlflow.note.content"]
    won = children[result.winner.id]
    assert f"{result.winner.test.accuracy:.1%}" in won["tags"]["mlflow.note.content"]
    versions = connect(uri).search_model_versions(f"name = '{folder.name}'")
    assert [(version.version, version.tags["lorasweep.trial"]) for version in versions] == [
        (versions[0].version, result.winner.id)
    ]


def publish_twice(place: Path, folder: SweepFolder, uri: str, *more: str) -> None:
    """Fill the store; again, which changes nothing."""
    lorasweep(place, "publish", folder.name, *more)
    check_store(folder, uri)
    first = dump(folder.name, uri)
    lorasweep(place, "publish", folder.name, *more)
    assert dump(folder.name, uri) == first


def span(folder: SweepFolder) -> float:
    """Seconds from the first trial's start to the last one's end."""
    records = folder.trials()
    return max(record.ended or 0.0 for record in records) - min(record.started or 0.0 for record in records)


def check_alone(folder: SweepFolder, count: int = 4) -> None:
    """The sweep itself is whole, whatever became of MLflow."""
    assert folder.state() == "finished"
    assert [record.state in ("completed", "stopped") for record in folder.trials()] == [True] * count


def warnings_in(err: str) -> list[str]:
    """The lines on standard error."""
    return [text for text in err.splitlines() if text.strip()]


@pytest.fixture(scope="module")
def direct(place: Path, server: MlflowServer) -> SweepFolder:
    """A sweep on a server that does what it should."""
    _, err = lorasweep(place, *SMALL, "--name", "direct", "--tracking-uri", server.uri)
    assert err == ""
    return SweepFolder(place / "mlruns", "direct")


def test_a_server_has_all_of_a_sweep(place: Path, direct: SweepFolder, server: MlflowServer) -> None:
    check_store(direct, server.uri)
    result = direct.result()
    assert result is not None
    assert result.published
    publish_twice(place, direct, server.uri)
    # Nothing was kept beside the server.
    assert not (place / "mlruns" / "mlflow.db").exists()


def test_a_server_on_postgresql(place: Path, database: str, tmp_path: Path) -> None:
    import psycopg2

    server = MlflowServer(tmp_path / "server", database)
    server.start()
    folder = SweepFolder(place / "mlruns", "postgres")
    try:
        lorasweep(place, *SMALL, "--name", folder.name, "--tracking-uri", server.uri)
        check_store(folder, server.uri)
        publish_twice(place, folder, server.uri)
    finally:
        server.kill()
    # The same sweep into a database without a server before it; its password is told to nobody.
    connection = psycopg2.connect(database.replace("+psycopg2", ""))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE alone")
    connection.close()
    alone = database.removesuffix("/postgres") + "/alone"
    out, err = lorasweep(place, "publish", folder.name, "--tracking-uri", alone)
    assert PASSWORD not in out + err
    publish_twice(place, folder, alone, "--tracking-uri", alone)
    assert not [path for path in folder.path.rglob("*.y*ml") if PASSWORD in path.read_text()]
    assert PASSWORD not in json.dumps(dump(folder.name, alone))


def test_a_server_killed_at_a_random_moment(place: Path, server: MlflowServer, direct: SweepFolder) -> None:
    seed = random.randrange(10**6)
    # While trials run, and while the winner is tested, sent and registered.
    moment = random.Random(seed).uniform(0, 3 * span(direct))
    print(f"seed {seed}: the server is killed {moment:.1f} s after the first trial began")
    folder = SweepFolder(place / "mlruns", "killed")
    try:
        with started(place, *SMALL, "--name", folder.name, "--tracking-uri", server.uri) as process:
            wait_for(lambda: folder.exists() and bool(folder.trials()), process)
            time.sleep(moment)
            server.kill()
            out, err = process.communicate(timeout=END)
        assert process.returncode == 0, out + err
        check_alone(folder)
        told = warnings_in(err)
        result = folder.result()
        assert result is not None
        if not result.published:
            # Once when it was noticed, if that was before the end; and at the end what to do.
            assert ["the sweep goes on" in text for text in told] in ([True, False], [False])
            assert f"lorasweep publish {folder.name}" in told[-1]
        elif not result.registered:
            assert ["the winner is not registered" in text for text in told] == [True]
        lorasweep(place, "publish", folder.name, code=2)
    finally:
        server.kill()
        server.start()
    publish_twice(place, folder, server.uri)


def test_a_server_away_from_the_beginning(place: Path, tmp_path: Path) -> None:
    server = MlflowServer(tmp_path / "server")
    folder = SweepFolder(place / "mlruns", "away")
    _, err = lorasweep(place, *SMALL, "--name", folder.name, "--tracking-uri", server.uri)
    check_alone(folder)
    first, last = warnings_in(err)
    assert "Connection refused" in first
    assert "the sweep goes on" in first
    assert f"lorasweep publish {folder.name}" in last
    server.start()
    try:
        publish_twice(place, folder, server.uri)
    finally:
        server.kill()


def test_a_slow_server_holds_up_no_trial(place: Path, line: Line, direct: SweepFolder) -> None:
    """Slow for as long as trials run: what comes before and after them waits for each answer."""
    folder = SweepFolder(place / "mlruns", "slow")
    with started(place, *SMALL, "--name", folder.name, "--tracking-uri", line.uri) as process:
        wait_for(lambda: folder.exists() and bool(folder.trials()), process)
        line.delay = 1.5
        wait_for(lambda: [trial.unfinished for trial in folder.trials()] == [False] * 4, process)
        line.delay = 0
        _, err = process.communicate(timeout=END)
    assert (process.returncode, err) == (0, "")
    # Two requests a rung and more, in turn with the trials, would take a minute.
    print(f"{span(direct):.0f} s on a quick server, {span(folder):.0f} s on a slow one")
    assert span(folder) < span(direct) + 20
    check_store(folder, line.uri)


def test_a_server_that_hangs_makes_no_run_twice(place: Path, line: Line, direct: SweepFolder) -> None:
    """It carries out what it is asked and never says so, which is when runs are made twice."""
    folder = SweepFolder(place / "mlruns", "hanging")
    arguments = [*SMALL, "--name", folder.name, "--tracking-uri", line.uri]
    with started(place, *arguments, MLFLOW_HTTP_REQUEST_TIMEOUT="3") as process:
        wait_for(lambda: folder.exists() and any(t.evaluations for t in folder.trials()), process)
        line.silent.set()
        out, err = process.communicate(timeout=END)
    line.silent.clear()
    assert process.returncode == 0, out + err
    check_alone(folder)
    assert span(folder) < span(direct) + 20
    assert f"lorasweep publish {folder.name}" in warnings_in(err)[-1]
    publish_twice(place, folder, line.uri, "--tracking-uri", line.uri)


def test_answers_that_are_lost_make_no_run_twice(place: Path, line: Line) -> None:
    folder = SweepFolder(place / "mlruns", "torn")
    lost = {"/runs/create": 3, "/runs/log-batch": 3, "/runs/update": 2}

    def torn(request: bytes) -> bool:
        head = request.split(b"\r\n", 1)[0].decode(errors="replace")
        for path, left in lost.items():
            if path in head and left > 0 and line.requests % 2:
                lost[path] = left - 1
                return True
        return False

    line.torn = torn
    lorasweep(place, *SMALL, "--name", folder.name, "--tracking-uri", line.uri)
    assert sum(lost.values()) < 8, "no answer was lost"
    line.torn = lambda request: False
    publish_twice(place, folder, line.uri)


def test_a_driver_killed_with_an_update_in_flight(place: Path, line: Line, server: MlflowServer) -> None:
    folder = SweepFolder(place / "mlruns", "flight")

    def one_is_done_and_one_under_way() -> bool:
        trials = folder.trials() if folder.exists() else []
        begun = [trial for trial in trials if trial.evaluations]
        return len({trial.state == "running" for trial in begun}) == 2

    # Trials so long that one is under way when the kill arrives, however fast the machine is.
    arguments = [*SMALL, "--epochs", "12", "--name", folder.name, "--tracking-uri", line.uri]
    with started(place, *arguments) as process:
        wait_for(lambda: folder.exists() and bool(folder.trials()), process)
        line.delay = 1.5
        wait_for(one_is_done_and_one_under_way, process)
        process.kill()
        process.wait()
    line.delay = 0
    publish_twice(place, folder, server.uri, "--tracking-uri", server.uri)
    assert {record.state for record in folder.trials()} >= {"running"}
