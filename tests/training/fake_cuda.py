"""A machine with GPUs for tests without one: what `lorasweep.training.devices` asks torch, answered from a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

GIGABYTE = 2**30


@dataclass
class FakeCuda:
    """GPUs as torch reports them, and what it has been told to do.

    Attributes:
        driver: GPUs that the driver counts, whether or not torch can use them.
        calls: name and arguments of each change, in order.
    """

    found: list[SimpleNamespace] = field(default_factory=list)
    driver: int | None = None
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def add(
        self, name: str = "H100", capability: tuple[int, int] = (9, 0), memory: int = 80 * GIGABYTE
    ) -> FakeCuda:
        """One more GPU."""
        major, minor = capability
        uuid = f"uuid-{len(self.found)}"
        self.found.append(
            SimpleNamespace(name=name, major=major, minor=minor, total_memory=memory, uuid=uuid)
        )
        return self

    def of(self, device: torch.device | int) -> SimpleNamespace:
        return self.found[device if isinstance(device, int) else device.index or 0]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
        """Put these GPUs in place of torch's own for a test; the fixture `gpus` sets torch's flags back, too."""

        def note(name: str, answer: object = None) -> None:
            def noted(*arguments: object) -> object:
                self.calls.append((name, *arguments))
                return answer

            monkeypatch.setattr(torch.cuda, name, noted)

        def count() -> int:
            return len(self.found) if self.driver is None else self.driver

        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(self.found))
        monkeypatch.setattr(torch.cuda, "device_count", count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", self.of)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: self.of(device).name)
        monkeypatch.setattr(
            torch.cuda,
            "get_device_capability",
            lambda device: (self.of(device).major, self.of(device).minor),
        )
        for name in (
            "set_device", "set_per_process_memory_fraction", "empty_cache", "synchronize", "set_rng_state",
            "reset_peak_memory_stats",
        ):  # fmt: skip
            note(name)
        note("current_device", 0)
        note("get_rng_state", torch.arange(4, dtype=torch.uint8))
        note("max_memory_allocated", 3000)
        note("memory_allocated", 1000)
        monkeypatch.setattr("lorasweep.training.devices._limited", set())
        return self
