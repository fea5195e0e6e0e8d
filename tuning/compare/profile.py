"""What a classifier costs: latency, memory, time and memory by operator, bytes on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.nn import functional as F

from lorasweep.training import devices
from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.data.labels import several
from lorasweep.training.inference.latency import prediction_times
from lorasweep.training.loop.label_losses import binary_losses
from lorasweep.training.model.hub import ADAPTER_WEIGHTS, FULL_WEIGHTS
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.tuning.compare.record import Latency, OperatorUse

# Part of a transformer → its operators as torch's profiler names them, backward passes included; the first match
# counts.
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


def measure_latency(
    model: nn.Module, texts: EncodedTexts, amp: AmpPolicy, batch: int, form: str = "whole", repeats: int = 50
) -> Latency:
    """Median and 95th percentile of `prediction_times`."""
    times = prediction_times(model, texts, amp, batch, repeats)
    median, p95 = np.percentile(times, (50, 95)).tolist()
    return Latency(form=form, precision=amp.name, batch=batch, median=median, p95=p95)


def profile_step(
    model: nn.Module, texts: EncodedTexts, amp: AmpPolicy, batch: int, steps: int = 3
) -> list[OperatorUse]:
    """Time and memory of a training step by operator: the mean over some steps, most time first.

    Gradients are dropped, so the model does not change. Of texts in chunks a batch is of chunks, as in training.
    """
    texts = texts.windows
    from torch.profiler import ProfilerActivity, profile

    model.train()
    random = np.random.default_rng(0)
    cuda = amp.device.type == "cuda"
    # Those of a training have their place in its flat gradient. Without it other operators would run.
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]

    def step() -> None:
        rows = random.choice(len(texts), size=min(batch, len(texts)), replace=False)
        labels = torch.from_numpy(texts.labels[rows]).to(amp.device)
        with amp.autocast():
            logits = model(**texts.batch(rows, amp.device)).logits
        loss = (
            binary_losses(logits.float(), labels, None).mean()
            if several(labels)
            else F.cross_entropy(logits.float(), labels)
        )
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, gradient in gradients:
            parameter.grad = None if gradient is None else gradient.zero_()

    step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        for _ in range(steps):
            step()
        devices.synchronize(amp.device)
    return operator_uses(profiler.events() or (), steps, cuda)


def operator_uses(events: Iterable[FunctionEvent], steps: int, cuda: bool) -> list[OperatorUse]:
    """Sum a profiler's events by kind of operator, as the mean over some steps, most time first.

    On CUDA the profiler reports a kernel twice: as an event of its own, and in the time of the operator that
    launched it. Only operators are counted.
    """
    used: dict[str, list[float]] = {}
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        allocated = event.self_device_memory_usage if cuda else event.self_cpu_memory_usage
        sums = used.setdefault(_kind_of_event(event), [0.0, 0.0])
        sums[0] += microseconds / 1e3 / steps
        sums[1] += max(0, allocated) / 1e6 / steps
    uses = [OperatorUse(name=name, milliseconds=ms, megabytes=mb) for name, (ms, mb) in used.items()]
    return sorted(uses, key=lambda use: -use.milliseconds)


def _kind_of_event(event: FunctionEvent | None) -> str:
    # An operator allocates through a helper that it calls: an event of no kind belongs to its caller.
    while event is not None:
        if (kind := operator_kind(event.name)) != OTHER:
            return kind
        event = event.cpu_parent
    return OTHER


def operator_kind(name: str) -> str:
    """The part of a transformer that an operator belongs to, by the profiler's name for it, or `other`."""
    return next((kind for kind, pattern in OPERATORS.items() if pattern.search(name)), OTHER)


def stored_bytes(folder: Path) -> int:
    """Size of the weights that `save_weights` wrote: of an adapter and its head, or of the whole model."""
    paths = (folder / ADAPTER_WEIGHTS, folder / FULL_WEIGHTS)
    return sum(path.stat().st_size for path in paths if path.is_file())


class PeakMemory:
    """Bytes added at most since it was made: on the device, or to this process on a CPU.

    On a GPU this is what torch has allocated. On a CPU it is the growth of the process's resident memory, which
    includes libraries loaded in between: load them before. Only Linux counts a process's peak from a given moment;
    elsewhere memory is read at the end, so what was freed before does not count.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            devices.reset_peak_memory(device)
            self._before = devices.allocated_memory(device)
        else:
            if CLEAR.exists():
                CLEAR.write_text("5")  # sets the peak back to what is resident now
            self._before = psutil.Process().memory_info().rss

    def read(self) -> int:
        """The peak so far."""
        if self._device.type == "cuda":
            return devices.peak_memory(self._device) - self._before
        peak = (
            re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
        )
        resident = 1024 * int(peak[1]) if peak else psutil.Process().memory_info().rss
        return max(0, resident - self._before)


class OtherPrograms:
    """What other programs use of the cores that this process may use, since it was made.

    Latencies that were taken meanwhile are longer than on a machine that does nothing else.
    """

    def __init__(self) -> None:
        self._before = self._read()

    def share(self) -> float:
        """Their part of the cores' time, in [0, 1]; 0 where the system does not count it."""
        used, own, idle = (after - before for after, before in zip(self._read(), self._before, strict=True))
        return min(max((used - own) / (used + idle), 0.0), 1.0) if used + idle > 0 else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Seconds of these cores' work, of this process, and of these cores' idling."""
        process, cores = psutil.Process(), psutil.cpu_times(percpu=True)
        if hasattr(process, "cpu_affinity"):
            cores = [cores[number] for number in process.cpu_affinity() if number < len(cores)]
        idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in cores)
        # A guest's time is counted as its user's, too.
        every = sum(
            sum(core) - getattr(core, "guest", 0.0) - getattr(core, "guest_nice", 0.0) for core in cores
        )
        own = process.cpu_times()
        return every - idle, own.user + own.system, idle
