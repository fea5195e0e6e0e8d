"""What a classifier costs: time for a prediction, memory, the operators that take both, bytes on disk."""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lorasweep.training.data.encoding import EncodedTexts
from lorasweep.training.model.classifier import ADAPTER_WEIGHTS, FULL_WEIGHTS, save_weights
from lorasweep.training.model.precision import AmpPolicy

WARM_UP = 5
# Operators as torch's profiler names them, by the part of a transformer that they stand for; the first match
# counts. Their backward passes have names of the same kind.
OPERATORS = {
    "linear (addmm, mm)": re.compile(r"::(addmm|mm|bmm|baddbmm|linear)|mkldnn|onednn"),
    "attention": re.compile(r"scaled_dot_product|flash|efficient_attention"),
    "gelu": re.compile(r"gelu"),
    "softmax": re.compile(r"softmax"),
    "layer norm": re.compile(r"layer_norm"),
    "dropout": re.compile(r"dropout|bernoulli"),
    "casts and copies": re.compile(r"::(_?to|_to_copy|copy_|clone|contiguous)$"),
}
OTHER = "other"
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Latency:
    """Milliseconds from token ids in memory to logits in memory, for a batch of texts.

    Attributes:
        batch: texts at once.
        median, p95: over the repeats.
    """

    batch: int
    median: float
    p95: float


@dataclass(frozen=True)
class OperatorUse:
    """What one kind of operator takes in a training step, forward and backward.

    Attributes:
        milliseconds: of the device's time, callees left out.
        megabytes: that it allocates, in units of 10^6 bytes; what is freed again later counts too.
    """

    name: str
    milliseconds: float
    megabytes: float


@torch.inference_mode()
def measure_latency(
    model: nn.Module, texts: EncodedTexts, amp: AmpPolicy, batch: int, repeats: int = 50
) -> Latency:
    """Time predictions of random rows, each batch padded to its own longest, as a server would.

    Tokenisation is left out: it is the same for every model that shares a tokenizer.
    """
    model.eval()
    random = np.random.default_rng(0)
    times: list[float] = []
    for repeat in range(WARM_UP + repeats):
        rows = random.choice(len(texts), size=min(batch, len(texts)), replace=False)
        started = time.perf_counter()
        with amp.autocast():
            logits = model(**texts.batch(rows, amp.device)).logits
        logits.float().cpu()  # waits for the device
        if repeat >= WARM_UP:
            times.append(1000 * (time.perf_counter() - started))
    return Latency(batch, float(np.median(times)), float(np.percentile(times, 95)))


def profile_step(
    model: nn.Module, texts: EncodedTexts, amp: AmpPolicy, batch: int, steps: int = 3
) -> list[OperatorUse]:
    """Time and memory of each kind of operator in a training step, mean over some steps, largest time first.

    The gradients are dropped: the model stays as it is.
    """
    from torch.profiler import ProfilerActivity, profile

    model.train()
    random = np.random.default_rng(0)
    cuda = amp.device.type == "cuda"

    def step() -> None:
        rows = random.choice(len(texts), size=min(batch, len(texts)), replace=False)
        labels = torch.from_numpy(texts.labels[rows]).to(amp.device)
        with amp.autocast():
            logits = model(**texts.batch(rows, amp.device)).logits
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        for _ in range(steps):
            step()
        if cuda:
            torch.cuda.synchronize(amp.device)
    found: dict[str, list[float]] = {}
    for event in profiler.events() or ():
        used = found.setdefault(_kind_of_event(event), [0.0, 0.0])
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        allocated = event.self_device_memory_usage if cuda else event.self_cpu_memory_usage
        used[0] += microseconds / 1e3 / steps
        used[1] += max(0, allocated) / 1e6 / steps
    uses = [OperatorUse(name, *used) for name, used in found.items()]
    return sorted(uses, key=lambda use: -use.milliseconds)


def _kind_of_event(event: Any) -> str:
    # An operator's memory is allocated by a helper that it calls: what is of no kind belongs to its caller.
    while event is not None:
        kind = operator_kind(event.name)
        if kind != OTHER:
            return kind
        event = event.cpu_parent
    return OTHER


def operator_kind(name: str) -> str:
    """The kind that a profiler's operator name belongs to, `other` where it is none of the known ones."""
    return next((kind for kind, pattern in OPERATORS.items() if pattern.search(name)), OTHER)


def stored_bytes(model: nn.Module) -> int:
    """Bytes of the weights that have to be kept: of an adapter and its head, or of the whole model."""
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        save_weights(model, Path(temporary))
        paths = [Path(temporary) / name for name in (ADAPTER_WEIGHTS, FULL_WEIGHTS)]
        return sum(path.stat().st_size for path in paths if path.is_file())


class PeakMemory:
    """The most memory that was added since it was made, in bytes: the device's, or this process's on a CPU.

    On a GPU it is what torch has allocated at once. On a CPU it is the growth of the process's resident memory
    as Linux counts it, so libraries that are loaded on the way count too: load them before.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            CLEAR.write_text("5")  # sets the peak back to what is resident now
            self._before = _status_bytes("VmRSS")

    def read(self) -> int:
        """The peak so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return max(0, _status_bytes("VmHWM") - self._before)


def _status_bytes(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"{STATUS}: has no {name}")
