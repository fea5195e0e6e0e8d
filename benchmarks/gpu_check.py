"""A check of `gpu.py`: what it is given, and the process that it runs in.

Each check has a process of its own, so that one which runs too long or breaks the device's state takes no other with
it. The processes are forked from one that has imported all libraries and has not touched the device: that saves each of
them the seconds of the imports.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Some of these are imported only for the processes that are forked: a trial imports them late.
import peft  # noqa: F401
import torch
from gpu_bases import Size, base_folder
from gpu_report import Finding, append, read
from transformers import AutoModelForSequenceClassification as AutoModelForSequenceClassification
from transformers.models.bert import modeling_bert as modeling_bert
from transformers.models.modernbert import modeling_modernbert as modeling_modernbert
from transformers.models.roberta import modeling_roberta as modeling_roberta

from lorasweep.training.errors import first_line

# Seconds between two looks at what a check has found.
LOOK = 0.1


@dataclass(frozen=True)
class Bench:
    """What a check is given.

    Attributes:
        device: a GPU, or the CPU where there is none.
        small: tiny models and few repeats, to see that everything runs.
        folder: where base models are kept.
        ends: time by `time.monotonic` at which the check is stopped.
        start_method: how it starts processes of its own.
    """

    device: torch.device
    small: bool
    folder: Path
    ends: float = math.inf
    start_method: str = "fork"

    @property
    def left(self) -> float:
        """Seconds until the check is stopped."""
        return self.ends - time.monotonic()

    @property
    def on_gpu(self) -> bool:
        """Whether there is one."""
        return self.device.type == "cuda"

    def base(self, size: Size) -> Path:
        """The folder of a base model."""
        return base_folder(size, self.folder, self.small, self.device)


@dataclass(frozen=True)
class Check:
    """A check and its time limit, in seconds of a run of eight minutes."""

    name: str
    run: Callable[[Bench], Iterator[Finding]]
    seconds: float


def start_method() -> str | None:
    """How processes that use the GPU are started; None if torch can use no GPU.

    Asked in processes of their own, so that this one stays fit to be forked. If an import has touched CUDA none the
    less, forked processes cannot use it, and new ones are slower to start.
    """
    # A build of torch without CUDA can use none.
    for method in ("fork", "spawn") if torch.version.cuda else ():
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=_use_gpu)
        process.start()
        process.join()
        if process.exitcode == 0:
            return method
    return None


def _use_gpu() -> None:
    """End with 0 if torch can use a GPU."""
    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError):
        sys.exit(1)


def run_check(
    check: Check,
    seconds: float,
    bench: Bench,
    lines: Path,
    show: Callable[[Finding], None],
) -> None:
    """Run a check in its own process; each finding is written and shown as it comes.

    Args:
        seconds: after which it is stopped.
        lines: file of JSON lines that the findings are added to.
        show: called with each finding.
    """
    seen = len(read(lines))
    bench = replace(bench, ends=time.monotonic() + seconds)
    context: Any = multiprocessing.get_context(bench.start_method)
    process = context.Process(target=_work, args=(check, bench, lines))
    process.start()
    assert process.pid
    try:
        while process.is_alive() and bench.left > 0:
            process.join(LOOK)
            found = read(lines)
            for finding in found[seen:]:
                show(finding)
            seen = len(found)
        late = process.is_alive()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
        process.join()
    if late or process.exitcode:
        problem = f"stopped after {seconds:.0f} s" if late else f"its process ended with {process.exitcode}"
        append(lines, Finding(check.name, f"ends within {seconds:.0f} s", problem, False, {}, check.name))
    for finding in read(lines)[seen:]:
        show(finding)


def _work(check: Check, bench: Bench, lines: Path) -> None:
    """The check's own process."""
    os.setsid()
    torch.manual_seed(0)
    if bench.small and not bench.on_gpu:
        torch.set_num_threads(1)  # tiny models are slowed by more
    try:
        for finding in check.run(bench):
            append(lines, replace(finding, check=check.name))
    except Exception as error:  # what a check raises is what it has found
        problem = f"{type(error).__name__}: {first_line(error)}"
        figures = {"traceback": traceback.format_exc()}
        append(lines, Finding(check.name, "no error", problem, False, figures, check.name))
