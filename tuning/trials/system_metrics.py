"""CPU, memory and GPU use of a trial's process, sampled during training."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from statistics import mean
from typing import TypeVar

import psutil
import torch

from lorasweep.training import devices

SAMPLING_SECONDS = 1.0
MEGABYTE = 1e6
Step = TypeVar("Step")


def monitored(
    steps: Iterable[Step], device: torch.device | None, interval: float = SAMPLING_SECONDS
) -> Iterator[tuple[Step, dict[str, float]]]:
    """Yield each step with this process's resource use while the step was computed.

    Args:
        device: that the steps compute on; None measures nothing.
        interval: seconds between two samples.

    Yields:
        The step, and by name: `cpu_percent`, the mean, 100 per core; `memory_mb`, the highest resident memory seen;
        on CUDA `gpu_memory_mb`, the most that torch had allocated, and `gpu_percent`, the mean use of the whole GPU
        if nvidia-ml-py is installed. Megabytes are 10^6 bytes.
    """
    if device is None:
        for step in steps:
            yield step, {}
        return
    with ProcessMonitor(device, interval) as monitor:
        for step in steps:
            yield step, monitor.take()


class ProcessMonitor:
    """Samples this process in a background thread; a context manager."""

    def __init__(self, device: torch.device, interval: float = SAMPLING_SECONDS) -> None:
        self._device = device
        self._interval = interval
        self._process = psutil.Process()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._samples: dict[str, list[float]] = {}
        self._since = (time.monotonic(), self._cpu_seconds())
        self._thread = threading.Thread(target=self._watch, name="lorasweep-system-metrics", daemon=True)

    def __enter__(self) -> ProcessMonitor:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join()

    def take(self) -> dict[str, float]:
        """Resource use since the last call, one number per name."""
        with self._lock:
            # At least one sample, however short the step.
            self._sample()
            samples, self._samples = self._samples, {}
        before, self._since = self._since, (time.monotonic(), self._cpu_seconds())
        seconds, used = self._since[0] - before[0], self._since[1] - before[1]
        use = {"cpu_percent": 100 * used / max(seconds, 1e-6), "memory_mb": max(samples["memory_mb"])}
        if "gpu_percent" in samples:
            use["gpu_percent"] = mean(samples["gpu_percent"])
        if self._device.type == "cuda":
            use["gpu_memory_mb"] = devices.peak_memory(self._device) / MEGABYTE
            devices.reset_peak_memory(self._device)
        return use

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _watch(self) -> None:
        while not self._closing.wait(self._interval):
            with self._lock:
                self._sample()

    def _sample(self) -> None:
        self._samples.setdefault("memory_mb", []).append(self._process.memory_info().rss / MEGABYTE)
        if (used := devices.utilization(self._device)) is not None:
            self._samples.setdefault("gpu_percent", []).append(used)
