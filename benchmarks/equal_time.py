"""Real sweeps of equal time: the defaults before the portfolio and the objective, and today's.

    python benchmarks/equal_time.py FOLDER [--sets trec subj headlines] [--minutes 3] [--seeds 3] [--write]

FOLDER holds the files of `record_curves.py`, of which the same parts are used. Each sweep is a `lorasweep run
--max-minutes`, with more trials than fit into the time. Before: one start, ASHA (factor 3 from the first of six rungs)
and TPE by accuracy. Now: no options. Prints the test accuracy of each winner and of each sweep's known-good start,
which both train to the end. A sweep that has finished in the folder of `--mlruns` is not run again. Sets x seeds x 2 x
minutes: about an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, table
from record_curves import SETS, START

from lorasweep.search_spaces.space import SearchSpace, load_space
from lorasweep.training.files.yaml_file import dump_yaml

LIBRARIES = ("torch", "ray", "optuna", "transformers", "peft")
# Never the limit.
TRIALS = 200
BEFORE = (
    "--evaluations-per-epoch",
    "2",
    "--objective",
    "accuracy",
    "--reduction-factor",
    "3",
    "--grace-rungs",
    "1",
)
WAYS: dict[str, tuple[str, ...]] = {"before": BEFORE, "now": ()}


def lorasweep(*arguments: str) -> str:
    """Run the command and return what it printed."""
    command = [sys.executable, "-m", "lorasweep", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def old_space(folder: Path) -> Path:
    """A file of the default space with the one start that it had."""
    space = load_space("lora_cpu")
    assert isinstance(space, SearchSpace)
    entries = space.to_mapping() | {"starts": [START]}
    path = folder / "one_start.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_yaml(entries))
    return path


def arguments(name: str, folder: Path, way: str, seed: int, minutes: float, mlruns: Path) -> list[str]:
    """The options of one sweep."""
    chosen = SETS[name]
    options = ["--data", str(folder / chosen.file), "--label", chosen.label, "--base-model", "minilm"]
    options += [part for column in chosen.text for part in ("--text", column)]
    options += ["--split-column", chosen.split_column] if chosen.split_column else []
    options += [
        "--max-train-rows",
        str(chosen.train_rows),
        "--max-validation-rows",
        str(chosen.validation_rows),
    ]
    options += ["--seed", str(seed), "--trials", str(TRIALS), "--max-minutes", f"{minutes:g}", *WAYS[way]]
    options += ["--space", str(old_space(mlruns))] if way == "before" else []
    return [*options, "--no-register", "--no-baselines", "--mlruns", str(mlruns)]


def sweep(name: str, folder: Path, way: str, seed: int, minutes: float, mlruns: Path) -> dict[str, Any]:
    """The result of one sweep, which runs unless it has finished before; with the number of its trials."""
    sweep_name = f"{name}-{way}-{seed}-{minutes:g}min"
    path = mlruns / "sweeps" / sweep_name / "result.json"
    if not path.is_file() or json.loads(path.read_text())["state"] != "finished":
        lorasweep("run", "--name", sweep_name, *arguments(name, folder, way, seed, minutes, mlruns))
    result: dict[str, Any] = json.loads(path.read_text())
    status = json.loads(lorasweep("status", sweep_name, "--json", "--mlruns", str(mlruns)))
    print(f"{sweep_name}: {result['winner']['test']['accuracy']:.1%}", file=sys.stderr, flush=True)
    return result | {"trials": status["trials"]}


def rows(results: dict[str, dict[str, list[dict[str, Any]]]]) -> Iterator[list[str]]:
    """A row for each set and way: each figure the mean over the seeds."""
    for name, ways in results.items():
        for way, sweeps in ways.items():
            tests = [100 * result["winner"]["test"]["accuracy"] for result in sweeps]
            starts = [100 * result["start"]["test"]["accuracy"] for result in sweeps if result.get("start")]
            states = [trial["state"] for result in sweeps for trial in result["trials"]]
            yield [
                f"{name}, {way}",
                f"{np.mean(tests):.1f} ({', '.join(f'{test:.1f}' for test in tests)})",
                f"{100 * np.mean([result['winner']['score'] for result in sweeps]):.1f}",
                f"{np.mean(starts):.1f}" if starts else "-",
                f"{len(states) / len(sweeps):.0f}, {states.count('completed') / len(sweeps):.0f}",
                f"{np.mean([result['seconds'] for result in sweeps]) / 60:.1f}",
            ]


def gaps(results: dict[str, dict[str, list[dict[str, Any]]]]) -> np.ndarray:
    """Test points that now has more than before, shape (sets, seeds)."""
    scores = [
        [[result["winner"]["test"]["accuracy"] for result in ways[way]] for way in ("now", "before")]
        for ways in results.values()
    ]
    now, before = 100 * np.array(scores).swapaxes(0, 1)
    difference: np.ndarray = now - before
    return difference


def main(words: Sequence[str] | None = None) -> None:
    """Run what has not run, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["trec", "subj", "headlines"])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mlruns", type=Path, default=Path("mlruns/equal-time"))
    parser.add_argument("--write", action="store_true", help="into results/equal_time.md")
    options = parser.parse_args(words)
    results: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {way: [] for way in WAYS} for name in options.sets
    }
    for seed in range(options.seeds):
        for name in options.sets:
            for way in WAYS:
                result = sweep(name, options.folder, way, seed, options.minutes, options.mlruns)
                results[name][way].append(result)
    head = ["", "test accuracy (each seed)", "validation", "start, test", "trials, to the end", "minutes"]
    gap = gaps(results)
    parts = [
        "# Real sweeps of equal time",
        f"`lorasweep run --max-minutes {options.minutes:g}`, {options.seeds} seeds, in percent. Before: one start, "
        "ASHA of factor 3 from the first of six rungs, all by accuracy. Now: the defaults. The start is the "
        "known-good one, which both train to its end.",
        table(head, rows(results)),
        f"Now has {gap.mean():+.1f} points of test accuracy more than before (by set "
        f"{', '.join(f'{mean:+.1f}' for mean in gap.mean(axis=1))}); standard error over the "
        f"{gap.size} pairs {gap.std(ddof=1) / np.sqrt(gap.size):.1f}."
        if gap.size > 1
        else "",
    ]
    command = f"python benchmarks/equal_time.py FOLDER --minutes {options.minutes:g} --seeds {options.seeds} --write"
    finish(parts, "equal_time.md", command, LIBRARIES, write=options.write)


if __name__ == "__main__":
    main()
