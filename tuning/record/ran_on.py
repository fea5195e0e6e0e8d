"""What a trial ran on: its node, device, precision and library versions, as the trial itself has seen them.

In a cluster the process that plans a sweep may have another processor, no GPU, and other versions.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from lorasweep.tuning.record.machine import package_versions, processor, system

if TYPE_CHECKING:
    from lorasweep.training.model.precision import AmpPolicy


class RanOn(BaseModel):
    """Where and with what a trial ran. Unknown fields are ignored: later versions may add some.

    Attributes:
        node: host name and address of the machine.
        device: `cpu` or `cuda`.
        gpu: name of the GPU, such as `NVIDIA L4`; None on CPU cores.
        processor: name of the processor.
        precision: of the training, resolved.
        system, python, cuda: their versions; `cuda` is None on CPU cores.
        packages: name → version of the packages that shape results.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    node: str = ""
    device: str = "cpu"
    gpu: str | None = None
    processor: str = ""
    precision: str = ""
    system: str = ""
    python: str = ""
    cuda: str | None = None
    packages: dict[str, str] = {}

    @property
    def device_text(self) -> str:
        """The device in words, with the precision: `NVIDIA L4, bf16`."""
        return ", ".join(word for word in (self.gpu or self.device, self.precision) if word)

    @property
    def machine(self) -> dict[str, Any]:
        """The machine in the form of `lorasweep.tuning.record.machine`, without what a trial does not know."""
        return {
            "cpu": self.processor,
            "gpus": [self.gpu] if self.gpu else [],
            "os": self.system,
            "python": self.python,
            "cuda": self.cuda,
            "packages": self.packages,
        }


def this_process(amp: AmpPolicy, address: str) -> RanOn:
    """What this process trains on.

    Args:
        amp: precision and device of the training.
        address: of this machine in the cluster.
    """
    from lorasweep.training import devices  # imports torch

    on_gpu = amp.device.type == "cuda"
    return RanOn(
        node=node_name(address),
        device=amp.device.type,
        gpu=devices.name_of(amp.device),
        processor=processor(),
        precision=amp.name,
        system=system(),
        python=platform.python_version(),
        cuda=devices.cuda_version() if on_gpu else None,
        packages=_versions(),
    )


def node_name(address: str) -> str:
    """This machine for people: its host name, and its address in the cluster where it is another."""
    host = socket.gethostname()
    return host if host == address or not address else f"{host} ({address})"


def devices_text(ran: Iterable[RanOn | None]) -> str:
    """The devices of some trials with their precisions, each once; empty where none is on record."""
    texts = dict.fromkeys(entry.device_text for entry in ran if entry is not None)
    return "; ".join(texts)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return package_versions()
