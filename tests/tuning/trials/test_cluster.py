"""How Ray is started, and a cluster joined."""

from __future__ import annotations

import errno
import os

import pytest
from ray._private.utils import validate_socket_filepath

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.trials import cluster


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
