"""The command line on a tiny random BERT in processes of its own, for the tests of whole sweeps."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil
from forked_programs import ForkedProcess, fork_program

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.study import open_study, own_trials, start_of

Process = subprocess.Popen[str] | ForkedProcess
Running = TypeVar("Running", subprocess.Popen[str], ForkedProcess, Process)
ROOT = Path(__file__).parents[1]
WORDS = {
    "money": "markets shares bank rally",
    "film": "film star album award",
    "health": "vaccine doctors trial",
}
# As it was before the first test, without what a developer may have set; the output is as wide as a terminal.
UNSET = ("MLFLOW_TRACKING_URI", "LORASWEEP_MLRUNS", "RAY_ADDRESS", "PYTEST_CURRENT_TEST")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in UNSET}
ENVIRONMENT |= {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
# Seconds that a command may take to its end, and to what a test waits for: several times those of two busy cores.
END, SOON = 600, 360
OPTUNA_STATES = {"completed": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}


def write_rows(path: Path) -> None:
    """60 distinct texts of three labels."""
    draw = random.Random(0)
    labels = list(WORDS)
    lines = ["text,label"]
    for number in range(60):
        label = labels[number % 3]
        words = draw.choices(WORDS[label].split(), k=3) + draw.choices(["new", "city", "team"], k=2)
        lines.append(f"{' '.join(words)} {number},{label}")
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def started(place: Path, *arguments: str, **more: str) -> Iterator[Process]:
    """The command in a process group of its own, as a terminal runs it; it ends with the block at the latest.

    Args:
        more: goes into its environment, which makes it a new interpreter: libraries read their variables when they
            are imported.
    """
    command = ["-m", "lorasweep", *arguments]
    process: Process
    process = new_interpreter(place, command, **more) if more else fork_program(place, command, ENVIRONMENT)
    with ending(process):
        yield process


@contextmanager
def ending(process: Running) -> Iterator[Running]:
    """It ends with the block at the latest, with its Ray and its workers: a test that fails starves none after it."""
    try:
        yield process
    finally:
        below = []
        if process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in below:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)


def new_interpreter(place: Path, arguments: Sequence[str], **more: str) -> subprocess.Popen[str]:
    """Python in a process group of its own, with nothing imported."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=place,
        env=ENVIRONMENT | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lorasweep(place: Path, *arguments: str, code: int = 0, **more: str) -> tuple[str, str]:
    """Run the command to its end; what it printed on standard output and standard error."""
    with started(place, *arguments, **more) as process:
        out, err = process.communicate(timeout=END)
    assert process.returncode == code, out + err
    return out, err


RUN = ["run", "--data", "rows.csv", "--base-model", "./base", "--precision", "fp32", "--max-length", "16"]


def check_study(folder: SweepFolder, records: list[TrialRecord]) -> None:
    """Optuna's study, under the sweep's own name, tells the same as the records."""
    trials = own_trials(open_study(folder.study_url, folder.name))
    # Starts beyond the number of trials wait behind them for an extension.
    begun, waiting = list(trials)[: len(records)], list(trials.values())[len(records) :]
    assert begun == [record.number for record in records]
    assert all(trial.state.name == "WAITING" and start_of(trial) for trial in waiting)
    trials = {number: trials[number] for number in begun}
    for trial, record in zip(trials.values(), records, strict=True):
        assert trial.state.name == OPTUNA_STATES[record.state]
        scores = {evaluation.rung: evaluation.judged for evaluation in record.evaluations}
        assert trial.intermediate_values == scores
        assert trial.params.items() <= record.hyperparameters.model_dump().items()


def wait_for(true: Callable[[], bool], process: Process, seconds: float = SOON) -> None:
    """Look until something is true, while a process lives."""
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill_when(place: Path, arguments: Sequence[str], folder: SweepFolder, true: Callable[[], bool]) -> None:
    """Run the command, and `kill -9` its driver as soon as something is true of the sweep's records."""
    with started(place, *arguments) as process:
        wait_for(lambda: folder.exists() and true(), process)
        process.kill()
        process.wait()
    assert folder.state() == "interrupted"
