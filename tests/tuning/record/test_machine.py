"""What a sweep's plan keeps of the machine it ran on."""

from __future__ import annotations

import json
import math
import os
import platform
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from lorasweep.tuning.record import machine as room
from lorasweep.tuning.record.machine import git_state, machine, usable_cores


def test_it_is_plain_and_names_nobody() -> None:
    found = machine()
    assert json.loads(json.dumps(found)) == found
    assert 1 <= found["cores"] <= len(os.sched_getaffinity(0))
    assert found["memory_bytes"] > 2**20
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert (found["gpus"], found["cuda"]) == ([], None)  # not looked for
    for private in (socket.gethostname(), str(Path.home()), str(Path.cwd())):
        assert len(private) < 4 or private not in json.dumps(found)


def test_cores_where_the_system_sets_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "cpu_limit", lambda: math.inf)
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()


V1 = "12:cpuset:/\n4:cpu,cpuacct:/docker/ab:c\n0::/docker/ab:c\n"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        # Version 2: the container's own group is the root of what it sees.
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
        # Without a namespace of its own: its group lies below others, and the lowest limit of all holds.
        (
            "0::/pods/pod7\n",
            {"pods/pod7/cpu.max": "400000 100000", "pods/cpu.max": "150000 100000", "cpu.max": "max 1"},
            1.5,
        ),
        ("0::/pods/pod7\n", {"pods/pod7/cpu.max": "400000 100000"}, 4),
        # Version 1, with the name that the group has on the host, or where it lies.
        (V1, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        (
            V1,
            {"cpu/docker/ab:c/cpu.cfs_quota_us": "50000", "cpu/docker/ab:c/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        # Only the controller of cores counts.
        ("4:cpuacct,cpuset:/\n", {"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "1"}, math.inf),
        ("0::/\n", {"cpu.max": "100000 0"}, math.inf),
        ("", {"cpu.max": "100000 100000"}, math.inf),
    ],
)
def test_a_containers_limit_of_cores(
    tmp_path: Path, own: str, files: dict[str, str], cores: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert room.cpu_limit(tmp_path / "cgroup", tmp_path / "own") == cores
    monkeypatch.setattr(room, "cpu_limit", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert usable_cores() == (16 if cores == math.inf else max(1, int(cores)))


def test_a_limit_of_more_cores_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "cpu_limit", lambda: 64.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5})
    assert usable_cores() == 2


def test_gpus_are_named_where_they_are_asked_for() -> None:
    found = machine(cuda=True)
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert all(isinstance(name, str) and name for name in found["gpus"])
    assert found["cuda"] == torch.version.cuda


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t:  Some   CPU @ 2 GHz \nmodel name\t: Another", "Some CPU @ 2 GHz"),
        ("processor\t: 0\nBogoMIPS\t: 50", None),
        ("model name\t:\n", None),
        (None, None),
    ],
)
def test_a_processor_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: str | None
) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(room, "CPU_INFO", path)
    assert machine()["cpu"] == (expected or platform.processor() or platform.machine())


def test_a_package_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PACKAGES", ("torch", "no-such-package-at-all"))
    assert machine()["packages"].keys() == {"torch"}


def test_the_commit_of_the_working_directory(tmp_path: Path) -> None:
    assert git_state(tmp_path / "gone") == {}
    assert git_state(tmp_path) == {}

    def git(*command: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    assert git_state(tmp_path) == {}
    (tmp_path / "space.yaml").write_text("rank: 4\n")
    git("add", ".")
    git("commit", "-m", "x")
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert not state["changed"]
    (tmp_path / "new").write_text("")
    assert git_state(tmp_path) == state
    (tmp_path / "space.yaml").write_text("rank: 8\n")
    assert git_state(tmp_path) == state | {"changed": True}
