"""The machine and the packages that a sweep ran with, written into its plan when it starts.

An export may be made years later and elsewhere: what it tells of the training has to be on record by then.
Nothing that names the machine or its user is kept.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("lorasweep", "torch", "transformers", "peft", "optuna", "ray")
# A repository on a slow network must not hold up a sweep.
GIT_SECONDS = 10
CPU_INFO = Path("/proc/cpuinfo")


def machine(cuda: bool = False) -> dict[str, Any]:
    """Processor, memory, GPUs and versions of the machine that this runs on; plain values only.

    Args:
        cuda: look for GPUs. It starts CUDA in this process, so only a sweep that trains on them asks for it.

    Returns:
        `cpu` (model name), `cores` (that this process may use), `memory_bytes`, `gpus` (a name for each),
        `os`, `python`, `cuda` (version, or None) and `packages` (name → version).
    """
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus() if cuda else [],
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cuda": _cuda_version() if cuda else None,
        "packages": package_versions(),
    }


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """The commit that a folder's repository stands at, and whether tracked files differ from it.

    Args:
        folder: the working directory if None: a sweep's settings and spaces are usually kept where it is started.

    Returns:
        `commit` and `changed`; nothing where there is no repository, or no git.
    """
    try:
        commit, changes = (
            _git(folder, *command) for command in (("rev-parse", "HEAD"), ("diff", "HEAD", "--stat"))
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "changed": bool(changes)}


def _git(folder: Path | None, *command: str) -> str:
    done = subprocess.run(
        ["git", *command], cwd=folder, capture_output=True, text=True, check=True, timeout=GIT_SECONDS
    )
    return done.stdout.strip()


def package_versions() -> dict[str, str]:
    """Package → version, of those that decide what a sweep finds; one that is not installed is left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    """As the kernel calls it; the architecture where it has no name, as on many ARM machines."""
    try:
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _cuda_version() -> str | None:
    import torch

    return torch.version.cuda
