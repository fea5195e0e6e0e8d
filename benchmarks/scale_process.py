"""What the parts of `scale.py` share: fresh processes, what a process keeps in memory, aims in words."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
MEGABYTE = 1e6
PAGE = os.sysconf("SC_PAGE_SIZE")


def in_fresh_process(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Call a function of a module in a new Python: what was measured before it leaves nothing there."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()


def let_workers_import() -> None:
    """Let Ray's workers import the benchmarks' modules; call it before Ray starts."""
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)


@dataclass(frozen=True)
class Memory:
    """What a process keeps in memory, in megabytes of 10^6 bytes.

    Attributes:
        rss: every page that it has mapped and that is in memory.
        pss: the same, a page that n processes map counted 1/n in each: sums over processes count nothing twice.
        own: pages that no other process can share, so what a further process of the kind adds.
    """

    rss: float
    pss: float
    own: float

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss, self.own + other.own)

    def __sub__(self, other: Memory) -> Memory:
        return Memory(self.rss - other.rss, self.pss - other.pss, self.own - other.own)


NOTHING = Memory(0.0, 0.0, 0.0)


def memory_of(processes: Iterable[int | str]) -> Memory:
    """The sum over processes, by their ids, as the kernel accounts for it; those that have ended count nothing."""
    total = NOTHING
    for process in processes:
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
            kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            values = (kilobytes[name] for name in ("Rss", "Pss", "Private_Dirty"))
            total += Memory(*(value * 1024 / MEGABYTE for value in values))
    return total


def resident() -> float:
    """Megabytes of this process in memory, shared ones included: cheap enough to be read at each trial's end."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MEGABYTE


def private() -> float:
    """Megabytes of this process that no file and no other process backs; as cheap."""
    _, in_memory, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(in_memory) - int(shared)) * PAGE / MEGABYTE


def forget_peak() -> None:
    """Let `peak` begin anew from what this process keeps in memory now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The most megabytes of this process that were in memory at once. (`ru_maxrss` would begin with its parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / MEGABYTE for line in lines if line.startswith("VmHWM"))


def progress(text: str) -> None:
    """Progress, for who waits."""
    print(text, file=sys.stderr, flush=True)


def aim(name: str, limit: float, seen: float, unit: str, digits: int = 0) -> str:
    """Whether an upper limit was kept."""
    verdict = "reached" if seen <= limit else "missed"
    return f"Aim: {name} at most {limit:g} {unit}; seen {seen:.{digits}f} {unit}: **{verdict}**."
