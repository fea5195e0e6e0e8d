"""CPUs and GPUs: the one place that asks `torch.cuda`.

Which device a process computes on, how CUDA is set up for a trial, its memory and its random state. Only the captured
step's own calls (`loop/graph.py`) are elsewhere.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch

from lorasweep.training.errors import SettingsError, first_line
from lorasweep.training.nvidia import driver_cuda_version, free_memory

DeviceKind = Literal["auto", "cpu", "cuda"]

# NVIDIA's compute capability from which bf16 and TF32 run in hardware (Ampere).
AMPERE = (8, 0)
# What CUDA itself keeps in each process that uses a GPU, beside what torch allocates: 0.3 to 0.5 GB.
CONTEXT_BYTES = 512 * 2**20
# How memory that has run out is reported where the error has no class of its own.
OUT_OF_MEMORY = (
    "out of memory",  # "CUDA error: out of memory" of torch.AcceleratorError
    "can't allocate memory",  # torch's allocator on a CPU
    "cannot allocate memory",  # the system, as in mmap
    "not enough memory",  # torch's allocator on Windows
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSOLVER
    "cublas_status_not_initialized",  # cuBLAS finds no room for its handle
)
# Indices of the GPUs on which this process has limited its memory.
_limited: set[int] = set()


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        capability: NVIDIA's compute capability.
        memory: in bytes.
    """

    name: str
    capability: tuple[int, int]
    memory: int


def cards() -> list[Card]:
    """The GPUs that torch can use in this process. Initialises CUDA."""
    if not torch.cuda.is_available():
        return []
    torch.cuda.current_device()  # CUDA, once begun, may see fewer than the driver counts
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [Card(card.name, (card.major, card.minor), card.total_memory) for card in found]


def name_of(device: torch.device) -> str | None:
    """The name of a GPU that this process uses, such as `NVIDIA L4`; None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def count_cards() -> int:
    """Number of GPUs, by their driver's word: torch may be unable to use them. Does not initialise CUDA."""
    return torch.cuda.device_count()


def choose_device(kind: DeviceKind = "auto", index: int | None = None) -> torch.device:
    """The device for a process that has reserved none.

    Args:
        kind: `auto` is a GPU where torch can use one.
        index: of the GPU; the one with the most free memory if None.

    Raises:
        SettingsError: there is no such GPU, or torch cannot use it.
    """
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SettingsError(f"device cuda: {_why_unusable()}, or use cpu")
    count = torch.cuda.device_count()
    if index is not None and not 0 <= index < count:
        raise SettingsError(f"device cuda:{index}: torch sees {count} GPUs, from cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", _freest(count) if index is None else index)


def named_device(name: str) -> torch.device:
    """The device that a user names: `auto`, `cpu`, `cuda`, `cuda:1`, or another that torch knows.

    Raises:
        SettingsError: torch knows none of this name, or cannot use it.
    """
    kind, _, index = name.partition(":")
    if kind in ("auto", "cpu", "cuda") and (not index or index.isdecimal()):
        return choose_device(kind, int(index) if index else None)  # type: ignore[arg-type]
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingsError(f"device {name}: {first_line(error)}; use auto, cpu or cuda") from error


def reserved_device(gpu_share: float) -> torch.device:
    """The device of a worker for which Ray has reserved a share of a GPU.

    Raises:
        SettingsError: torch cannot use that GPU. Training on the CPU instead would keep the GPU from others.
    """
    if gpu_share <= 0:
        return torch.device("cpu")
    problem = f"a trial has reserved {gpu_share:g} of a GPU"
    if not torch.cuda.is_available():
        raise SettingsError(f"{problem}: {_why_unusable()}, or train on CPU cores: --gpus-per-trial 0")
    device = torch.device("cuda", 0)
    try:
        _run_a_kernel(device)
    except (RuntimeError, torch.cuda.DeferredCudaCallError) as error:
        if is_out_of_memory(error):
            raise
        raise SettingsError(
            f"{problem}, and {torch.cuda.get_device_name(device)} does not work ({first_line(error)}); "
            f"{_versions()}: install a torch for this GPU, or train on CPU cores: --gpus-per-trial 0"
        ) from error
    return device


def _run_a_kernel(device: torch.device) -> None:
    # A GPU that is too old for this torch, broken, or another's alone shows it at the first one.
    torch.ones(1, device=device).add_(1).item()


def _why_unusable() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"this torch ({torch.__version__}) was built without CUDA; {_versions()}: install one with CUDA"
        )
    return f"torch cannot use a GPU here; {_versions()}: update the driver or install an older torch"


def _versions() -> str:
    driver = driver_cuda_version()
    supported = f"supports CUDA {driver}" if driver else "is missing"
    return f"torch's CUDA is {cuda_version() or 'none'}, and the NVIDIA driver {supported}"


def cuda_version() -> str | None:
    """The version of CUDA that torch was built with; None where it was built without."""
    return torch.version.cuda


def _freest(count: int) -> int:
    """Index of the GPU with the most free memory, among `count`; the first where that is not known."""
    if count == 1:
        return 0
    free = free_memory()
    uuids = [str(getattr(torch.cuda.get_device_properties(index), "uuid", "")) for index in range(count)]
    return max(range(count), key=lambda index: free.get(uuids[index].removeprefix("GPU-"), -1))


def begin(device: torch.device, share: float = 1.0) -> None:
    """Set CUDA up in this process for a trial or a model; does nothing on a CPU.

    Attention by cuDNN, which builds a plan for each new shape, is switched off, and products in fp32 run in TF32.

    Args:
        share: of the GPU's memory, in (0, 1], that the process may take, CUDA's own part included.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.matmul.allow_tf32 = True
    if device.index is not None:
        torch.cuda.set_device(device)
    _limit(device, share)


def release(device: torch.device) -> None:
    """Give back what a trial has taken of the GPU, except for tensors that are still in use."""
    if device.type == "cuda":
        _limit(device, 1.0)
        torch.cuda.empty_cache()


def trim_host_memory() -> None:
    """Give what this process has freed back to the system, where its C library can (glibc's `malloc_trim`).

    One training after the other leaves holes that nothing else of the machine can use: after 14 of MiniLM on a CPU a
    process held 1.9 GB, and 1.2 GB with this between them.
    """
    gc.collect()  # models refer to themselves
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _limit(device: torch.device, share: float) -> None:
    index = torch.cuda.current_device() if device.index is None else device.index
    if share < 1:
        total = torch.cuda.get_device_properties(index).total_memory
        # The limit is for torch's allocator alone. Half a share is left to it, however small the share is.
        torch.cuda.set_per_process_memory_fraction(max(share - CONTEXT_BYTES / total, share / 2), index)
        _limited.add(index)
    elif index in _limited:
        torch.cuda.set_per_process_memory_fraction(1.0, index)
        _limited.remove(index)


def empty_cache(device: torch.device) -> None:
    """Return memory that torch keeps for later to the GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_state(device: torch.device) -> torch.Tensor | None:
    """The state of a GPU's random numbers, on the CPU; None for a CPU, whose state is `torch.get_rng_state`."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(device: torch.device, state: torch.Tensor | None) -> None:
    """Restore what `random_state` returned; does nothing on a CPU or without a state."""
    if device.type == "cuda" and state is not None:
        torch.cuda.set_rng_state(state, device)


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure `peak_memory` anew; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.current_device()  # or the reset fails where nothing has used CUDA yet
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Most bytes that torch had allocated on a GPU since the last reset; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def allocated_memory(device: torch.device) -> int:
    """Bytes that torch has allocated on a GPU now; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def utilization(device: torch.device) -> float | None:
    """Percent of the last moment in which the GPU was busy, for all processes; None where nobody can tell."""
    if device.type == "cuda":
        # No nvidia-ml-py, a GPU in MIG slices, a driver that refuses.
        with suppress(Exception):
            return float(torch.cuda.utilization(device))
    return None


def bf16_in_hardware(device: torch.device, workers: Sequence[Card] = ()) -> bool:
    """Whether the device multiplies bf16 matrices natively; PyTorch would emulate it.

    Args:
        workers: GPUs of other processes to which `device` stands for; then all of them have to.
    """
    if device.type == "cuda":
        found = [card.capability for card in workers] or [torch.cuda.get_device_capability(device)]
        return min(found) >= AMPERE
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def uses_tf32(device: torch.device) -> bool:
    """Whether products in fp32 run in TF32, with 10 bits of mantissa, since `begin`."""
    if device.type != "cuda" or not torch.backends.cuda.matmul.allow_tf32:
        return False
    return torch.cuda.get_device_capability(device) >= AMPERE


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that memory has run out, on the device or the CPU."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError | OSError):
            message = str(error).lower()
            if any(sign in message for sign in OUT_OF_MEMORY):
                return True
        error = error.__cause__
    return False
