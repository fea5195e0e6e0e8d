"""The machine and the package versions of a sweep, recorded in its plan when it starts.

An export may be made years later on another machine, and its model card says what the adapter was trained on.
Nothing here identifies the machine or its user.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("lorasweep", "torch", "transformers", "peft", "optuna", "ray")
# A repository on a slow network must not hold up a sweep.
GIT_SECONDS = 10
CPU_INFO = Path("/proc/cpuinfo")
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def machine(cuda: bool = False) -> dict[str, Any]:
    """Processor, memory, GPUs and versions of this machine, as plain values.

    Args:
        cuda: list the GPUs, too. This initialises CUDA in this process.

    Returns:
        `cpu` (model name), `cores` (usable by this process), `memory_bytes`, `gpus` (names), `os`, `python`,
        `cuda` (version, or None) and `packages` (name → version).
    """
    from lorasweep.training import devices  # imports torch

    return {
        "cpu": processor(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [card.name for card in devices.cards()] if cuda else [],
        "os": system(),
        "python": platform.python_version(),
        "cuda": devices.cuda_version() if cuda else None,
        "packages": package_versions(),
    }


def usable_cores() -> int:
    """Cores that this process may use: by its affinity, and by the CPU limit of its container, rounded down.

    At least one; all of the machine's where the system sets no limit.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cpu_limit())))


def cpu_limit(groups: Path = CGROUPS, own: Path = OWN_CGROUP) -> float:
    """Cores that the control groups of this process allow, such as 2.5; infinite without a limit.

    Each group above counts, too. In a container the process's own group is often mounted as the root, while its name
    is that on the host: what is not there is passed over.

    Args:
        groups: where control groups are mounted: version 2, or version 1 with a folder for each controller.
        own: the groups of this process; see `man 7 cgroups`.
    """
    limits = [math.inf]
    for line in _text(own).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / "cpu" if controllers else groups
        group = root / name.strip("/")
        for folder in (group, *group.parents):
            limits.append(_quota(folder))
            if folder == root:
                break
    return min(limits)


def _quota(group: Path) -> float:
    """Cores that one control group allows, by version 2's file or version 1's two."""
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    if not period:
        quota, period = (_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    # Without a limit version 2 says `max`, and version 1 -1.
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """The checked-out commit of a folder's repository, and whether tracked files differ from it.

    Args:
        folder: the working directory if None, where a sweep's settings and spaces usually are.

    Returns:
        `commit` and `changed`; empty without a repository or without git.
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
    """Package → version of the packages that shape a sweep's results; missing ones are left out."""
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def system() -> str:
    """The operating system, its version and the architecture."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def processor() -> str:
    """The kernel's name for it, or the architecture: many ARM machines have no name."""
    try:
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
