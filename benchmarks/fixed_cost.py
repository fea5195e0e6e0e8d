"""What a sweep takes besides its trials: before the first one starts, and after the last one has ended.

    python benchmarks/fixed_cost.py [--rounds 3] [--other PYTHON] [--write]

Runs the demonstration in an empty folder, as a newcomer does, and takes the times of its trials from their records.
`--other` names the Python of an environment with another version of lorasweep: both take turns. `--write` makes
`results/fixed_cost.md`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import finish, spread, table

from lorasweep.tuning.sweep.plan.defaults import QUICKSTART

LIBRARIES = ("ray", "optuna", "mlflow", "torch", "transformers", "peft")
# The line with the winner's test score, in the log or in the result at the end.
ANSWER = re.compile(r"\bwinner t\d+")


@dataclass(frozen=True)
class Times:
    """Seconds of one sweep.

    Attributes:
        before: from the start of the process to the first trial's start.
        trials: from there to the last trial's end.
        answer: from there to the winner's test score on the screen.
        after: from the last trial's end to the end of the process.
    """

    before: float
    trials: float
    answer: float
    after: float

    @property
    def fixed(self) -> float:
        """What is no trial's."""
        return self.before + self.after


def run(python: str) -> Times:
    """The demonstration in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as place:
        started, answered = time.time(), 0.0
        process = subprocess.Popen(
            [python, "-m", "lorasweep", "run", "--name", "fixed"],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if not answered and ANSWER.search(line):
                answered = time.time()
        code, ended = process.wait(), time.time()
        if code:
            raise RuntimeError(f"{python} -m lorasweep run ended with {code}:\n{''.join(said[-20:])}")
        paths = Path(place, "mlruns", "sweeps", "fixed", "trials").glob("t*.json")
        trials = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    first, last = min(trial["started"] for trial in trials), max(trial["ended"] for trial in trials)
    return Times(first - started, last - first, answered - last, ended - last)


def report(found: dict[str, list[Times]]) -> list[str]:
    """The table of all sides."""
    rows = []
    for name, times in found.items():
        columns: Sequence[Sequence[float]] = (
            [entry.before for entry in times],
            [entry.trials for entry in times],
            [entry.answer for entry in times],
            [entry.after for entry in times],
            [entry.fixed for entry in times],
            [entry.fixed + entry.trials for entry in times],
        )
        rows.append([name, *map(spread, columns)])
    rounds = len(next(iter(found.values())))
    trials, rows_each = QUICKSTART["search"]["trials"], QUICKSTART["data"]["max_train_rows"]
    head = ["", "before", "trials", "answer", "after", "before + after", "whole"]
    return [
        "# What a sweep takes besides its trials",
        f"The demonstration ({trials} trials, {rows_each} rows, two at once) in an empty folder, so MLflow's database "
        f"is made, too; {rounds} rounds in turn; seconds, median (least–greatest). *Answer*: from the last trial's "
        "end to the winner's test score on the screen. *After* also counts the reference settings, the linear model, "
        "exports, the report, MLflow and the registered model.",
        table(head, rows),
    ]


def main() -> None:
    """Measure, print, and write if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="sweeps of each side")
    parser.add_argument("--other", help="the Python of another environment")
    parser.add_argument("--write", action="store_true", help="write results/fixed_cost.md")
    options = parser.parse_args()
    sides = {"now": sys.executable} | ({"other version": options.other} if options.other else {})
    found: dict[str, list[Times]] = {name: [] for name in sides}
    for number in range(options.rounds):
        for name, python in sides.items():
            found[name].append(run(python))
            fixed = found[name][-1].fixed
            print(f"round {number + 1} of {options.rounds}: {name}, {fixed:.0f} s", file=sys.stderr)
    other = " --other PYTHON" * bool(options.other)
    command = f"python benchmarks/fixed_cost.py --rounds {options.rounds}{other} --write"
    finish(report(found), "fixed_cost.md", command, LIBRARIES, write=options.write)


if __name__ == "__main__":
    main()
