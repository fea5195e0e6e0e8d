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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from common import made_by, processor, spread, table, write_result
from spans import FOLDER_VARIABLE, Cause, read_spans
from sweep_shape import Shape, draw_settings
from sweep_times import SweepTimes, sweep_times

from search_spaces.space import SearchSpace, load_space
from training.base_model import resolve_base_model
from training.data import DataSettings, load_dataset
from training.precision import resolve_precision
from tuning.mlflow_store import prepare_store
from tuning.quiet import quiet_environment

HERE = Path(__file__).parent
LIBRARIES = ("ray", "optuna", "mlflow", "torch", "transformers", "peft", "accelerate")
LORASWEEP, DOCUMENTED = "lorasweep", "as documented"
SCRIPTS = {LORASWEEP: "timed_lorasweep.py", DOCUMENTED: "documented_sweep.py"}
# More trials at once than lorasweep's own default would run.
MOST_WORKERS = 4
AIM_FASTER, AIM_OVERHEAD, AIM_NEXT, AIM_MLFLOW = 2.5, 0.15, 0.5, 0.02


@dataclass(frozen=True)
class Outcome:
    """A sweep that has ended.

    Attributes:
        best: best validation accuracy of any trial.
        tried: settings of its trials, in their order.
    """

    times: SweepTimes
    best: float
    tried: list[dict[str, object]]


def quickstart(short: bool) -> Shape:
    """The demonstration sweep's shape, or a part of it."""
    space = load_space("quickstart")
    assert isinstance(space, SearchSpace)
    base = resolve_base_model("minilm")
    cores = len(os.sched_getaffinity(0))
    workers = min(cores, MOST_WORKERS)
    return Shape(
        space={name: space.to_mapping()[name] for name in space.searched},
        settings=draw_settings(space, 4 if short else 8, seed=0),
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


def run(name: str, shape: Shape, folder: Path, store: Path) -> Outcome:
    """Run one side's sweep in a folder of its own, and divide its time."""
    spans = folder / "spans"
    spans.mkdir(parents=True)
    shape.write(folder)
    shutil.copytree(store, folder / "mlruns")
    data = DataSettings(max_train_rows=shape.train_rows, max_validation_rows=shape.validation_rows)
    load_dataset(data, shape.seed).save(folder)
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {
        FOLDER_VARIABLE: str(spans),
        "PYTHONPATH": path,
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
    kept = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    return Outcome(times, kept["best"], kept["tried"])


def measure(shape: Shape, rounds: int) -> dict[str, list[Outcome]]:
    """Both sides in turn."""
    found: dict[str, list[Outcome]] = {name: [] for name in SCRIPTS}
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        store = Path(temporary) / "store"
        prepare_store(f"sqlite:///{store / 'mlflow.db'}", store)
        for round_ in range(rounds):
            for name in SCRIPTS:
                folder = Path(temporary) / f"{round_}-{name.replace(' ', '-')}"
                found[name].append(run(name, shape, folder, store))
                seconds = found[name][-1].times.wall
                print(f"round {round_ + 1} of {rounds}: {name} {seconds:.0f} s", file=sys.stderr)
                shutil.rmtree(folder)
    return found


def wall_rows(found: dict[str, list[Outcome]]) -> Iterator[list[str]]:
    """A row a side: wall time, what it trained, how well it learnt."""
    for name, outcomes in found.items():
        times = [outcome.times for outcome in outcomes]
        yield [
            name,
            spread([time.wall for time in times]),
            spread([time.since_ray for time in times]),
            spread([time.rungs for time in times], 0),
            spread([time.wall / time.rungs for time in times], 2),
            spread([gap for time in times for gap in time.next_trials], 2),
            spread([100 * outcome.best for outcome in outcomes]),
        ]


def cause_rows(found: dict[str, list[Outcome]]) -> Iterator[list[str]]:
    """A row a cause: seconds and share of the wall time, median over the rounds."""
    for cause in Cause:
        cells, most = [str(cause)], 0.0
        for outcomes in found.values():
            seconds = median(outcome.times.causes[cause] for outcome in outcomes)
            share = median(outcome.times.causes[cause] / outcome.times.wall for outcome in outcomes)
            cells += [f"{seconds:.1f}", f"{share:.1%}"] if seconds else ["", ""]
            most = max(most, seconds)
        if most:
            yield cells


def aims(found: dict[str, list[Outcome]], workers: int) -> Iterator[list[str]]:
    """A row an aim: what was wanted, what was seen."""
    own = [outcome.times for outcome in found[LORASWEEP]]
    other = [outcome.times for outcome in found[DOCUMENTED]]
    faster = [b.wall / a.wall for a, b in zip(own, other, strict=True)]
    per_rung = [b.wall / b.rungs / (a.wall / a.rungs) for a, b in zip(own, other, strict=True)]
    overhead, idle = [100 * time.overhead for time in own], [100 * time.idle for time in own]
    gaps = [gap for time in own for gap in time.next_trials]
    mlflow = [100 * time.mlflow(workers) for time in own]

    def verdict(reached: bool) -> str:
        return "reached" if reached else "missed"

    yield [
        "whole sweep, times as fast as documented",
        f"at least {AIM_FASTER}",
        f"{spread(faster, 2)}; for each evaluation {spread(per_rung, 2)}",
        verdict(median(faster) >= AIM_FASTER),
    ]
    yield [
        "neither training nor evaluation, since Ray's start",
        f"at most {AIM_OVERHEAD:.0%}",
        f"{spread(overhead)} %, of which {spread(idle)} % a worker that no trial is left for",
        verdict(median(overhead) <= 100 * AIM_OVERHEAD),
    ]
    yield [
        "start of a further trial",
        f"at most {AIM_NEXT} s",
        f"{spread(gaps, 2)} s",
        verdict(median(gaps) <= AIM_NEXT),
    ]
    yield [
        "MLflow, of the wall time",
        f"at most {AIM_MLFLOW:.0%}",
        f"{spread(mlflow)} %",
        verdict(median(mlflow) <= 100 * AIM_MLFLOW),
    ]


def same_settings(found: dict[str, list[Outcome]], shape: Shape) -> bool:
    """Whether every sweep tried just the settings that were drawn for it."""
    return all(outcome.tried == shape.settings for outcomes in found.values() for outcome in outcomes)


def report(found: dict[str, list[Outcome]], shape: Shape, rounds: int) -> Sequence[str]:
    """The result in Markdown, in parts."""
    times = "once each" if rounds == 1 else f"{rounds} rounds in turn, median (least–greatest)"
    head = ["", *(cell for name in found for cell in (f"{name}, s", "share"))]
    return [
        "# A whole sweep",
        f"The demonstration's texts, which the project makes itself: {shape.train_rows} training and "
        f"{shape.validation_rows} validation rows, MiniLM-L6, batches of {shape.batch_size}, "
        f"{len(shape.settings)} trials of up to {shape.rungs} evaluations in {shape.epochs} "
        f"epoch{'s' * (shape.epochs != 1)}, {shape.concurrency} at once with {shape.threads} "
        f"thread{'s' * (shape.threads != 1)} each; {times}. Each side is a process of its own, measured from its "
        "start to its end.",
        "*As documented* is `documented_sweep.py`: a function trainable that builds tokenizer, PEFT model and "
        "`Trainer` and tokenises its rows in each trial, `OptunaSearch`, `ASHAScheduler`, `MLflowLoggerCallback`. "
        "Both try the same settings in the same order (drawn once, handed to Optuna as its first trials), with the "
        "same rows, seed, batch size, precision, adapted modules, ASHA rungs and rule. Both find MLflow's database "
        "made. lorasweep's linear models, untuned settings and model registry are off, as the other side has "
        "nothing like them; that it reads and splits the texts, scores its winner on the test split, exports the "
        "best adapters and draws a report is in its time.",
        table(
            [
                "",
                "wall, s",
                "since Ray's start, s",
                "evaluations",
                "s for each",
                "next trial, s",
                "best accuracy, %",
            ],
            wall_rows(found),
        ),
        "An evaluation ends a sixth of a trial's training or, in the short form, a third. *Next trial*: from a "
        "trial's last report to the first step of the next one in its place.",
        table(head, cause_rows(found)),
        "While trials run, a cause has the mean over the workers; what a worker waits for while MLflow holds up the "
        "driver is MLflow's. lorasweep's MLflow works on a thread beside the trials: the core's time that it takes "
        f"there, {spread([outcome.times.mlflow_beside for outcome in found[LORASWEEP]])} s, is in the last row of "
        "the next table and not in this one.",
        table(["aim", "wanted", "seen", ""], aims(found, shape.concurrency)),
    ]


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="fewer trials and rows, each side once")
    parser.add_argument("--write", action="store_true", help="write results/sweep.md")
    options = parser.parse_args()
    quiet_environment()
    rounds = 1 if options.short else 3
    shape = quickstart(options.short)
    found = measure(shape, rounds)
    parts = list(report(found, shape, rounds))
    if not same_settings(found, shape):
        parts.append("**The two sides did not try the same settings: these figures compare nothing.**")
    print("\n\n".join(parts))
    if options.write:
        command = f"python benchmarks/sweep.py{' --short' * options.short} --write"
        write_result("sweep.md", [*parts, made_by(command, LIBRARIES, processor())])


if __name__ == "__main__":
    main()
