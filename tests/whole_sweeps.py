"""The command line run on a tiny random BERT in processes of its own, for the tests of whole sweeps."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from forked_commands import ForkedCommand, fork_command

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import TrialRecord
from lorasweep.tuning.search.study import open_study, own_trials, start_of

Command = subprocess.Popen[str] | ForkedCommand
ROOT = Path(__file__).parents[1]
WORDS = {
    "money": "markets shares bank rally",
    "film": "film star album award",
    "health": "vaccine doctors trial",
}
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


def start(place: Path, *arguments: str, **more: str) -> Command:
    """The command in a process group of its own, as a terminal runs it; `more` goes into its environment.

    With `more` it is a new interpreter: libraries read their variables when they are imported.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MLFLOW_TRACKING_URI", "LORASWEEP_MLRUNS", "RAY_ADDRESS")
    } | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    if not more:
        return fork_command(place, list(arguments), environment)
    return subprocess.Popen(
        [sys.executable, "-m", "lorasweep", *arguments],
        cwd=place,
        env=environment | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lorasweep(place: Path, *arguments: str, code: int = 0, **more: str) -> tuple[str, str]:
    """Run the command to its end; what it printed on standard output and standard error."""
    process = start(place, *arguments, **more)
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
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


def wait_for(true: Callable[[], bool], process: Command, seconds: float = 180) -> None:
    """Look until something is true, while a process lives."""
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
