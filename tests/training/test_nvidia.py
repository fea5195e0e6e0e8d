"""What the NVIDIA driver says, from a fake library and a fake nvidia-smi."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorasweep.training import nvidia


@pytest.mark.parametrize(
    ("number", "result", "version"), [(13000, 0, "13.0"), (12020, 0, "12.2"), (13000, 3, None)]
)
def test_the_drivers_cuda(
    monkeypatch: pytest.MonkeyPatch, number: int, result: int, version: str | None
) -> None:
    def answer(place: Any) -> int:
        place._obj.value = number
        return result

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(cuDriverGetVersion=answer))
    assert nvidia.driver_cuda_version() == version


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert nvidia.driver_cuda_version() is None


@pytest.mark.parametrize(
    ("program", "free"),
    [
        ("echo GPU-12ab-34cd, 81079; echo GPU-56ef-78ab, 12", {"12ab-34cd": 81079, "56ef-78ab": 12}),
        ("echo GPU-12ab-34cd, [N/A]", {}),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'", {}),
        ("exit 9", {}),
        ("exec sleep 20", {}),
        (None, {}),
    ],
)
def test_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, free: dict[str, int]
) -> None:
    if program is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvidia, "ANSWER_SECONDS", 1 if program == "exec sleep 20" else 10)
    assert nvidia.free_memory() == free
