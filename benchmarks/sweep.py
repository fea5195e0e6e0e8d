"""A whole sweep by lorasweep against the same trials written as the libraries' documentations write them.

    python benchmarks/sweep.py [--short] [--write]

Both sides run as processes of their own, in turn, on the demonstration's texts, which the project makes itself: the
same settings in the same order, rows, budget, early stopping, seed, trials at once and threads. Fifteen minutes on two
CPU cores, `--short` three. `--write` makes `results/sweep.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from common import finish
from spans import FOLDER_VARIABLE, read_spans
from sweep_shape import SPACE, Shape, draw_settings
from sweep_tables import DOCUMENTED, LORASWEEP, Outcome, report
from sweep_times import sweep_times

from lorasweep.search_spaces.space import SearchSpace, load_space
from lorasweep.training.data.load import load_dataset
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.precision import resolve_precision
from lorasweep.training.settings import DataSettings
from lorasweep.tuning.quiet import quiet_environment
from lorasweep.tuning.tracking.store import prepare_store
from lorasweep.tuning.trials.shares import DEFAULT_CONCURRENCY

HERE = Path(__file__).parent
LIBRARIES = ("ray", "optuna", "mlflow", "torch", "transformers", "peft", "accelerate")
SCRIPTS = {LORASWEEP: "timed_lorasweep.py", DOCUMENTED: "documented_sweep.py"}


def whole_or_part(short: bool) -> Shape:
    """The shape of the sweep that is timed, or a part of it."""
    space = load_space(str(SPACE))
    assert isinstance(space, SearchSpace)
    base = resolve_base_model("minilm")
    cores = len(os.sched_getaffinity(0))
    trials = 4 if short else 8
    # As lorasweep chooses by itself, and so that each worker has a further trial.
    workers = min(cores, DEFAULT_CONCURRENCY, trials // 2)
    return Shape(
        space={name: space.to_mapping()[name] for name in space.searched},
        settings=draw_settings(space, trials, seed=0),
        train_rows=240 if short else 480,
        validation_rows=160,
        batch_size=space.hyperparameters({}).batch_size,
        epochs=1 if short else 2,
        evaluations_per_epoch=3,
        grace_rungs=1,
        reduction_factor=3,
        max_length=128,
        seed=0,
        base_model=base.location,
        model_type=base.model_type,
        bf16=resolve_precision("auto", torch.device("cpu"), base.model_type).name == "bf16",
        concurrency=workers,
        threads=cores // workers,
    )


def run(name: str, shape: Shape, folder: Path, store: Path, environment: Mapping[str, str]) -> Outcome:
    """Run one side's sweep in a folder of its own, and divide its time."""
    spans = folder / "spans"
    spans.mkdir(parents=True)
    shape.write(folder)
    shutil.copytree(store, folder / "mlruns")
    data = DataSettings(max_train_rows=shape.train_rows, max_validation_rows=shape.validation_rows)
    load_dataset(data, shape.seed).save(folder)
    path = [str(HERE.parent), str(HERE), *filter(None, [environment.get("PYTHONPATH")])]
    environment = {
        **environment,
        FOLDER_VARIABLE: str(spans),
        "PYTHONPATH": os.pathsep.join(path),
        # Neither side is to wait for a network.
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        started = time.time()
        process = subprocess.Popen(
            [sys.executable, str(HERE / SCRIPTS[name]), str(folder)],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        code = process.wait()
        ended = time.time()
    if code:
        raise RuntimeError(f"{name} ended with {code}:\n{(folder / 'output.txt').read_text()[-3000:]}")
    times = sweep_times(read_spans(spans), process.pid, started, ended, shape.concurrency)
    outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    return Outcome(times, outcome["best"], outcome["tried"])


def measure(shape: Shape, rounds: int) -> dict[str, list[Outcome]]:
    """Both sides in turn."""
    # As it is now: what lorasweep keeps quiet in its own process, the other side has as its libraries have it.
    environment = dict(os.environ)
    quiet_environment()
    outcomes: dict[str, list[Outcome]] = {name: [] for name in SCRIPTS}
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        store = Path(temporary) / "store"
        prepare_store(f"sqlite:///{store / 'mlflow.db'}", store)
        for round_ in range(rounds):
            for name in SCRIPTS:
                folder = Path(temporary) / f"{round_}-{name.replace(' ', '-')}"
                outcomes[name].append(run(name, shape, folder, store, environment))
                seconds = outcomes[name][-1].times.wall
                print(f"round {round_ + 1} of {rounds}: {name} {seconds:.0f} s", file=sys.stderr)
                shutil.rmtree(folder)
    return outcomes


def main() -> None:
    """Measure, print, and write if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="fewer trials and rows, each side once")
    parser.add_argument("--write", action="store_true", help="write results/sweep.md")
    options = parser.parse_args()
    rounds = 1 if options.short else 3
    shape = whole_or_part(options.short)
    outcomes = measure(shape, rounds)
    parts = report(outcomes, shape)
    command = f"python benchmarks/sweep.py{' --short' * options.short} --write"
    finish(parts, "sweep.md", command, LIBRARIES, write=options.write)


if __name__ == "__main__":
    main()
