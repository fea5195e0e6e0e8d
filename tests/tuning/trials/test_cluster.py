"""What a trial gets of a machine: never more than there is, and a clear refusal where more is asked for."""

from __future__ import annotations

import errno
import itertools
import os

import pytest
from ray._private.utils import validate_socket_filepath

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import ResourceSettings
from lorasweep.tuning.trials import cluster
from lorasweep.tuning.trials.cluster import Resources, find_resources, resolve_resources


def resolve(cpus: int, gpus: float, trials: int = 20, **settings: float | int) -> Resources:
    """Resolve settings on a machine."""
    return resolve_resources(ResourceSettings.model_validate(settings), trials, cpus, gpus)


def test_whatever_is_asked_nothing_is_used_twice() -> None:
    """Threads × trials never exceed the cores, nor GPU shares the GPUs; at least one trial runs."""
    accepted = 0
    grid = itertools.product(
        (1, 2, 3, 7, 8, 64),
        (0.0, 1.0, 2.0, 8.0),
        (1, 3, 40),
        (None, 0, 0.3, 0.5, 1, 2),
        (None, 1, 4),
        (None, 1, 5),
    )
    for cpus, gpus, trials, share, cores, concurrency in grid:
        settings = ResourceSettings(gpus_per_trial=share, cpus_per_trial=cores, concurrency=concurrency)
        try:
            found = resolve_resources(settings, trials, cpus, gpus)
        except SettingsError:
            explicit = cores is not None or concurrency is not None or bool(share)
            assert explicit, "nothing was asked for, so nothing may be refused"
            continue
        accepted += 1
        assert 1 <= found.concurrency <= trials
        assert found.cpus_per_trial >= 1
        assert found.cpus_per_trial * found.concurrency <= cpus, settings
        assert found.gpus_per_trial * found.concurrency <= gpus + 1e-9, settings
        assert share is None or found.gpus_per_trial == share
        assert cores is None or found.cpus_per_trial == cores
        assert concurrency is None or found.concurrency == min(concurrency, trials)
    assert accepted > 300


def test_defaults_use_the_machine() -> None:
    """Cores are dealt out whole; a GPU a trial; not more at once than there are trials."""
    assert resolve(2, 0) == Resources(2, 0, 1, 0.0, 2)
    assert resolve(64, 0) == Resources(64, 0, 16, 0.0, 4)
    assert resolve(64, 0, trials=1) == Resources(64, 0, 64, 0.0, 1)
    assert resolve(64, 8) == Resources(64, 8, 4, 1.0, 8)
    assert resolve(2, 8).concurrency == 2
    assert resolve(16, 1, gpus_per_trial=0) == Resources(16, 1, 4, 0.0, 4)


@pytest.mark.parametrize(
    ("share", "at_once"), [(0.5, 4), (0.25, 8), (0.3, 6), (0.1, 20), (1, 2), (2, 1), (0.6, 2)]
)
def test_fractions_of_gpus(share: float, at_once: int) -> None:
    """Two GPUs; 0.1 in binary must not cost a place, and no trial lies on two of them with 0.6."""
    assert resolve(64, 2, trials=40, gpus_per_trial=share).concurrency == at_once


@pytest.mark.parametrize(
    ("cpus", "gpus", "settings", "parts"),
    [
        (4, 0, {"gpus_per_trial": 1}, ("--gpus-per-trial 1", "0 GPUs", "0 to train on CPU")),
        (4, 2, {"gpus_per_trial": 3}, ("--gpus-per-trial 3", "2 GPUs")),
        (4, 2, {"gpus_per_trial": 1.5}, ("--gpus-per-trial 1.5", "whole number")),
        (4, 0, {"cpus_per_trial": 5}, ("--cpus-per-trial 5", "4 cores")),
        (
            64,
            2,
            {"gpus_per_trial": 0.5, "concurrency": 5},
            ("--concurrency 5", "2 GPUs hold 4 trials of 0.5"),
        ),
        (0, 2, {}, ("--address", "no cores")),
        (4, 0, {"concurrency": 5}, ("--concurrency 5", "needs a core", "there are 4")),
        (4, 0, {"concurrency": 64}, ("--concurrency 64", "there are 4")),
        (64, 2, {"concurrency": 64}, ("--concurrency 64", "2 GPUs hold 2 trials")),
        (4, 0, {"concurrency": 3, "cpus_per_trial": 2}, ("--concurrency 3", "--cpus-per-trial 2", "6 cores")),
    ],
)
def test_refusals(cpus: int, gpus: float, settings: dict[str, float], parts: tuple[str, ...]) -> None:
    """Each names the option, its value, and what there is, on one line."""
    with pytest.raises(SettingsError) as refused:
        resolve(cpus, gpus, **settings)
    for part in parts:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_it_is_said_why_fewer_trials_run_at_once_than_were_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert resolve(64, 0, trials=3).concurrency == 3
    assert caplog.messages == []
    assert resolve(64, 0, trials=20, concurrency=64).concurrency == 20
    assert caplog.messages == ["concurrency 64: the sweep has 20 trials, so no more run at once"]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_rays_sockets_fit_whatever_the_temporary_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM makes folders for a job that are longer than a socket's path may be."""
    started: list[str | None] = []
    monkeypatch.setattr(cluster, "_started", False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda _temp_dir, **options: started.append(_temp_dir))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    for length in range(10, 110):
        monkeypatch.setenv(name, f"/tmp/{'x' * (length - 5)}")
        cluster.start_ray(None)
        folder = started.pop() or f"{os.environ[name]}/ray"
        socket = f"{folder}/session_2026-11-27_21-19-19_292865_4194304/sockets/plasma_store"
        validate_socket_filepath(socket)
        # No other folder than the user's without need.
        assert folder.startswith(os.environ[name]) == (length <= 39)


def test_a_folder_that_ray_cannot_write_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/closed/ray")

    monkeypatch.setattr(cluster, "_started", False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(
        SettingsError, match=r"^/closed/ray: Ray cannot write there \(Permission denied\); name"
    ):
        cluster.start_ray(None)


def test_this_machine_is_found() -> None:
    """At least a core; the GPUs that torch sees."""
    cpus, gpus = find_resources(None)
    assert cpus >= 1
    assert gpus >= 0
