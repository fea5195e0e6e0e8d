"""Time, launches, waits and memory of a training step on a GPU; on a CPU the time alone."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from gemm import wait

# Calls of the driver that give the device something to do; a replayed graph is one.
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
# Steps between two looks at the clock: a trial waits for the device no more often.
CHUNK = 10


@dataclass(frozen=True)
class Measured:
    """A step, repeated.

    Attributes:
        ms: median time of a step, in milliseconds.
        rows_per_second: at that time.
        launches: calls of the driver in a step; None on a CPU.
        busy: share of the time in which the device computes; None on a CPU.
        memory: greatest memory of tensors, base model included, in bytes; None on a CPU.
    """

    ms: float
    rows_per_second: float
    launches: int | None = None
    busy: float | None = None
    memory: int | None = None

    def __str__(self) -> str:
        parts = [f"{self.rows_per_second:,.0f} rows/s, {self.ms:.2f} ms"]
        if self.launches is not None and self.busy is not None and self.memory is not None:
            parts.append(f"{self.launches:,} launches, {self.busy:.0%} busy, {self.memory / 2**30:.2f} GiB")
        return ", ".join(parts)


def measure(
    step: Callable[[], object],
    rows: int,
    device: torch.device,
    seconds: float,
    *,
    warm_up: int = 6,
    chunk: int = CHUNK,
) -> Measured:
    """Repeat a step of so many rows for some seconds, after steps that are left out."""
    for _ in range(warm_up):
        step()
    wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    chunks: list[float] = []
    ends = time.perf_counter() + seconds
    while len(chunks) < 2 or time.perf_counter() < ends:
        started = time.perf_counter()
        for _ in range(chunk):
            step()
        wait(device)
        chunks.append((time.perf_counter() - started) / chunk)
    taken = median(chunks)
    measured = Measured(1e3 * taken, rows / taken)
    if device.type != "cuda":
        return measured
    memory = torch.cuda.max_memory_allocated(device)
    launches, busy = _profiled(step, device)
    return Measured(measured.ms, measured.rows_per_second, launches, min(1.0, busy / taken), memory)


def _profiled(step: Callable[[], object], device: torch.device, steps: int = 3) -> tuple[int, float]:
    """Launches of a step, and the seconds of it in which the device computes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as run:
        for _ in range(steps):
            step()
        wait(device)
    events: Any = run.events()
    launches = sum(event.name.startswith(LAUNCHES) for event in events)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]
    return round(launches / steps), 1e-6 * covered(spans) / steps


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: kernels on two streams count once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def once_ms(step: Callable[[], object], device: torch.device) -> float:
    """Time of a single call in milliseconds, waited for."""
    wait(device)
    started = time.perf_counter()
    step()
    wait(device)
    return 1e3 * (time.perf_counter() - started)


def waits(step: Callable[[], object], device: torch.device) -> int | None:
    """Times that a call waits for the device; None on a CPU, where it cannot be counted."""
    if device.type != "cuda":
        step()
        return None
    wait(device)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def forget(device: torch.device) -> None:
    """Give back what deleted models have held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
