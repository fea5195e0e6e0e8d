"""What may differ when a sweep goes on, and what a Ray job changes by itself."""

from __future__ import annotations

import pytest

from lorasweep.options import OPTIONS, RESUME_OPTIONS
from lorasweep.training.errors import SettingError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.sweep.moved import MOVABLE, in_job, moved_config, moves

CLUSTER = SweepConfig.model_validate(
    {
        "name": "demo",
        "search": {"trials": 3},
        "resources": {"address": "10.0.0.1:6379", "concurrency": 8, "storage": "/shared"},
        "tracking_uri": "postgresql://me:secret@db/mlflow",
    }
)
HERE = SweepConfig.model_validate({"name": "demo"})


def test_each_of_them_is_an_option_and_says_what_none_is() -> None:
    # The storage stays the sweep's own; `resume` takes its name to find it.
    assert {OPTIONS[name].place for name in RESUME_OPTIONS} == {*MOVABLE, ("resources", "storage")}
    assert all(OPTIONS[name].default is None for name in RESUME_OPTIONS)


def test_what_differs_is_told_without_passwords() -> None:
    entries = {
        "resources": {"address": "10.0.0.9:6379", "concurrency": 2, "gpus_per_trial": 0.5},
        "tracking_uri": "http://me:secret@mlflow:5000",
    }
    after = moved_config(CLUSTER, entries)
    assert (after.resources.storage, after.search) == ("/shared", CLUSTER.search)
    assert moves(CLUSTER, after) == [
        "address 10.0.0.9:6379 instead of 10.0.0.1:6379",
        "concurrency 2 instead of 8",
        "gpus per trial 0.5 instead of what fits",
        "tracking uri http://me:***@mlflow:5000 instead of postgresql://me:***@db/mlflow",
    ]
    assert moves(CLUSTER, moved_config(CLUSTER, {})) == []


def test_a_sweep_leaves_its_cluster_for_this_machine() -> None:
    after = moved_config(CLUSTER, {"resources": {"address": "local"}})
    assert after.resources.address is None
    assert moves(CLUSTER, after) == ["address this machine instead of 10.0.0.1:6379"]
    assert (
        SweepConfig.build({"name": "demo", "resources": {"address": "local"}}, "x").resources.address is None
    )


def test_a_value_that_no_run_could_have_is_refused() -> None:
    with pytest.raises(SettingError, match="concurrency"):
        moved_config(CLUSTER, {"resources": {"concurrency": 0}})


def test_a_ray_job_joins_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other program does not, though many have an address in their environment."""
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    assert in_job(HERE) == (HERE, "")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    joined, note = in_job(HERE)
    assert joined.resources.address == "auto"
    assert "joins the job's cluster (10.0.0.5:6379)" in note
    assert in_job(CLUSTER) == (CLUSTER, ""), "an address that was asked for stays"
    monkeypatch.delenv("RAY_ADDRESS")
    assert in_job(HERE) == (HERE, "")
