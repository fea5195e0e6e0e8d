"""What a sweep's plan keeps of the machine it ran on."""

from __future__ import annotations

import json
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
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["memory_bytes"] > 2**20
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert (found["gpus"], found["cuda"]) == ([], None)  # not looked for
    for private in (socket.gethostname(), str(Path.home()), str(Path.cwd())):
        assert len(private) < 4 or private not in json.dumps(found)


def test_cores_where_the_system_sets_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()


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
