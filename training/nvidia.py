"""What NVIDIA's driver says by itself, without starting CUDA in this process."""

from __future__ import annotations

import ctypes
import subprocess
import sys

# A broken driver may never answer.
ANSWER_SECONDS = 10


def driver_cuda_version() -> str | None:
    """The newest version of CUDA that this machine's driver supports; None without a driver."""
    number = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def free_memory() -> dict[str, int]:
    """UUID → free megabytes of each of the machine's GPUs; empty where nvidia-smi cannot tell.

    torch would have to start CUDA on each of them to ask, which takes half a GB of each.
    """
    command = ["nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS)
        entries = [line.partition(",") for line in answer.stdout.splitlines()]
        return {uuid.strip().removeprefix("GPU-"): int(free) for uuid, _, free in entries}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
