"""`monitored` on this process, with work of a known size."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from fake_cuda import FakeCuda

from lorasweep.tuning.trials.system_metrics import MEGABYTE, monitored

CPU = torch.device("cpu")


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lorasweep-system-metrics"]


def test_work_and_rest_are_told_apart() -> None:
    def steps() -> Iterator[str]:
        busy(0.3)
        yield "busy"
        time.sleep(0.3)
        yield "idle"

    found = dict(monitored(steps(), CPU, interval=0.02))
    # Threads of other libraries may add to it, and another process may hold the core for a while.
    assert found["busy"]["cpu_percent"] > 3 * found["idle"]["cpu_percent"]
    assert set(found["busy"]) == {"cpu_percent", "memory_mb"}


def test_a_peak_between_two_steps_is_seen_once() -> None:
    def steps() -> Iterator[str]:
        held = bytearray(200_000_000)
        time.sleep(0.2)
        del held
        yield "peak"
        time.sleep(0.1)
        yield "after"

    found = dict(monitored(steps(), CPU, interval=0.02))
    assert found["peak"]["memory_mb"] - found["after"]["memory_mb"] > 150_000_000 / MEGABYTE


def test_nothing_is_measured_unasked_and_no_thread_stays() -> None:
    assert list(monitored("ab", None)) == [("a", {}), ("b", {})]
    assert not watchers()

    def steps() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    started = monitored(steps(), CPU)
    next(started)
    assert watchers()
    with pytest.raises(ValueError, match="broken"):
        next(started)
    assert not watchers()


def test_a_gpus_memory_and_use_are_those_of_each_step(
    gpus: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.add()
    use = iter([40, 80, *[0] * 100])
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(use))
    found = dict(monitored("ab", torch.device("cuda", 0), interval=60))
    assert [found[step]["gpu_percent"] for step in "ab"] == [40, 80]
    assert {found[step]["gpu_memory_mb"] for step in "ab"} == {3000 / MEGABYTE}
    assert [call[0] for call in gpus.calls].count("reset_peak_memory_stats") == 2

    def refuse(device: torch.device) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    assert "gpu_percent" not in dict(monitored("a", torch.device("cuda", 0)))["a"]
