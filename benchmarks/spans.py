"""Where the time of a sweep goes: spans with a cause, which each of its processes writes as JSON lines.

A span's beginning and its end are lines of their own, so that a process that Ray ends in the middle of a trial has
still recorded what it was doing. Nothing is written unless the variable `LORASWEEP_SPANS` names a folder.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "LORASWEEP_SPANS"
_numbers = itertools.count()


class Cause(StrEnum):
    """What time is spent on, in the words and the order of the table."""

    TRAINING = "training"
    EVALUATION = "evaluation"
    IDLE = "no trial left for a worker"
    STARTING = "start of workers and trials"
    LOADING = "loading: tokenizer, model, adapter"
    ENCODING = "encoding"
    CHECKPOINTS = "checkpoints"
    REPORTING = "reports: waiting for Ray's answer"
    MLFLOW = "MLflow"
    BEFORE = "before Ray: imports, checks, configuration"
    DATA = "reading and splitting the texts"
    RAY_START = "Ray's start"
    WINNER = "the winner on the test split"
    ADAPTERS = "best adapters exported and checked"
    PLOTS = "report with its plots"
    RAY_END = "Ray's end, exit"
    REST = "the rest"
    # What holds others and is no cause itself.
    TRIALS = "all trials"
    TRIAL = "one trial"


@dataclass(frozen=True)
class Span:
    """A stretch of one thread's time.

    Attributes:
        start, end: seconds since 1970.
        cpu: seconds of a core that its thread used; 0 where the process was ended in the middle.
        main: whether the thread is its process's first.
    """

    cause: Cause
    start: float
    end: float
    cpu: float
    process: int
    main: bool


@contextmanager
def span(cause: Cause) -> Iterator[None]:
    """Record what is inside, where spans are wanted."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        yield
        return
    number, cpu = next(_numbers), time.thread_time()
    main = threading.current_thread() is threading.main_thread()
    _write(folder, {"begin": number, "time": time.time(), "cause": cause, "main": main})
    try:
        yield
    finally:
        _write(folder, {"end": number, "time": time.time(), "cpu": time.thread_time() - cpu})


def timed(function: Callable[..., Any], cause: Cause) -> Callable[..., Any]:
    """The function, each of its calls a span."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with span(cause):
            return function(*arguments, **named)

    return call


def timed_steps(function: Callable[..., Iterator[Any]], cause: Cause) -> Callable[..., Iterator[Any]]:
    """A generator function, each stretch of its work up to the next value a span."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Iterator[Any]:
        values = function(*arguments, **named)
        while True:
            with span(cause):
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value

    return call


def wrap(owner: Any, name: str, cause: Cause, by: Callable[..., Callable[..., Any]] = timed) -> None:
    """Time a function of a module or a method of a class from now on; once, however often this is called."""
    function = getattr(owner, name)
    if not getattr(function, "_recorded", False):
        recorded = by(function, cause)
        recorded._recorded = True  # type: ignore[attr-defined]
        setattr(owner, name, recorded)


def _write(folder: str, entry: dict[str, Any]) -> None:
    # Opened for each line: a worker is ended without warning, and threads share the file.
    with Path(folder, f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def read_spans(folder: Path) -> list[Span]:
    """All spans of all processes by their start. One without an end stops with its process's last line."""
    spans = []
    for path in folder.glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        last = max(line["time"] for line in lines)
        ends = {line["end"]: line for line in lines if "end" in line}
        for line in lines:
            if "begin" in line:
                end = ends.get(line["begin"], {"time": last, "cpu": 0.0})
                cause, main = Cause(line["cause"]), bool(line["main"])
                spans.append(Span(cause, line["time"], end["time"], end["cpu"], int(path.stem), main))
    return sorted(spans, key=lambda span: span.start)
