"""A cluster that cannot be joined: one line each, that says what to do."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest
import ray
from ray._private import services
from ray.exceptions import AuthenticationError

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.trials import cluster, joining
from lorasweep.tuning.trials.joining import check_address, join_cluster, join_problem

# As `ray.init` raises them: the reason stands in the text of the second one, a whole traceback.
REFUSED = (
    "Failed to connect to GCS. Last connection error: ...\nray.exceptions.AuthenticationError: RPC error"
)
NO_NODE = "No node info found matching attributes: '' when trying to resolve node to connect to."


def caused_by(error: Exception) -> Exception:
    """What `ray.init` makes of an error."""
    try:
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from error
    except ConnectionError as outer:
        return outer


@pytest.mark.parametrize(
    ("mode", "error", "parts"),
    [
        (
            None,
            caused_by(RuntimeError(REFUSED)),
            ("asks for a token", "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        ),
        ("token", caused_by(RuntimeError(REFUSED)), ("refuses this token", "RAY_AUTH_TOKEN")),
        (
            "token",
            AuthenticationError("Token authentication is enabled but no authentication token was found"),
            ("RAY_AUTH_MODE is token, and there is none", "~/.ray/auth_token"),
        ),
        (
            None,
            caused_by(RuntimeError(NO_NODE)),
            ("this machine is no node of the cluster", "ray start --address", "ray job submit"),
        ),
        (
            None,
            ConnectionRefusedError(111, "Connection refused"),
            ("no Ray cluster answers there ([Errno 111] Connection refused)", "--address local"),
        ),
        (None, ValueError(""), ("no Ray cluster answers there (ValueError)",)),
    ],
)
def test_what_ray_says_becomes_one_line(
    mode: str | None, error: Exception, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    line = join_problem(error)
    for part in parts:
        assert part in line
    assert "\n" not in line


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "http://10.0.0.1:8265"])
def test_the_address_of_a_client_is_refused(address: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"^--address {address}: .*--address auto, or as a job"
    ) as refused:
        check_address(address)
    assert "\n" not in str(refused.value)


def test_a_clients_address_is_refused_though_ray_runs_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(SettingsError, match="ray:// is for Ray's clients"):
        cluster.start_ray("ray://10.0.0.1:10001")
    cluster.start_ray("auto")


@pytest.fixture
def greeted(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of something that listens, and no Ray."""
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray would try for a minute"))
    monkeypatch.setattr(joining, "TRIES", 1)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with socket.create_server(("", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_token_is_asked_for_at_once_and_without_rays_own_lines(
    greeted: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ray's native code writes one for each of twenty tries."""

    def refuse(address: str) -> None:
        os.write(2, b"gcs_client.cc:210: Failed to get cluster ID\n")
        raise AuthenticationError("InvalidAuthToken")

    monkeypatch.setattr(ray._raylet, "GcsClient", refuse)
    with pytest.raises(SettingsError, match=rf"^--address {greeted}: the cluster asks for a token; set"):
        join_cluster(greeted)
    print("here again", file=sys.stderr)
    assert capfd.readouterr().err == "here again\n"


def test_a_machine_that_is_no_node_is_told_so_at_once(greeted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray._raylet, "GcsClient", lambda address: None)
    monkeypatch.setattr(services, "find_node_ids", set)
    with pytest.raises(
        SettingsError, match=rf"^--address {greeted}: this machine is no node of the cluster; "
    ):
        join_cluster(greeted)


def test_a_closed_port_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray would wait for minutes"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SettingsError, match="Connection refused"):
        join_cluster(f"127.0.0.1:{port}")
