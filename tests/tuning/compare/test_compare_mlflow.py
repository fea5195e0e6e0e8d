"""A comparison in a real SQLite store: once, however often it is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from compared import SETTINGS, failed, rows

from lorasweep.tuning.compare.mlflow import publish
from lorasweep.tuning.compare.record import ComparisonFolder
from lorasweep.tuning.tracking.store import connect, prepare_store


def test_a_parent_and_a_child_a_row_without_doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mlruns = tmp_path / "mlruns"
    uri = f"sqlite:///{mlruns / 'mlflow.db'}"
    prepare_store(uri, mlruns)
    folder = ComparisonFolder(mlruns, "demo")
    folder.open(SETTINGS)
    found = rows()
    broken = [failed(found[0], "out of memory"), *found[1:]]
    files = {"comparison.md": b"# demo", "comparison.html": b"<p>demo"}
    assert publish(folder, SETTINGS, broken, files, uri)
    # The row that failed is done at the second attempt.
    for _ in range(2):
        assert publish(folder, SETTINGS, found, files | {"comparison.md": b"# again"}, uri)
    client = connect(uri)
    runs = client.search_runs([client.get_experiment_by_name("lorasweep").experiment_id])
    parents = [run for run in runs if run.data.tags["lorasweep.kind"] == "comparison"]
    children = {run.data.tags["lorasweep.trial"]: run for run in runs if run not in parents}
    (parent,) = parents
    assert set(children) == {row.plan.id for row in found}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "lorasweep.error" not in children["full-fp32"].data.tags
    for row in found:
        assert children[row.plan.id].data.metrics == pytest.approx(row.figures())
        assert len(client.get_metric_history(children[row.plan.id].info.run_id, "test/accuracy")) == 1
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id)} == set(files)


def test_a_store_that_fails_is_told_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ComparisonFolder(tmp_path, "demo")
    folder.open(SETTINGS)
    assert not publish(folder, SETTINGS, rows(), {}, "http://user:secret@127.0.0.1:9")
    assert "takes no records" in caplog.text
    assert "secret" not in caplog.text
