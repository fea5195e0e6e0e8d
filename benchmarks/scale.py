"""How cost grows: with rows, with trials, with trials at once, in time and in memory.

    python benchmarks/scale.py [--short] [--write] [--news DIR]

Each measurement runs in a process of its own. Rows: read, split and encoded. Trials, and trials at once: whole
sweeps whose trials cost nothing (`scale_trials.py`), so that what is left is the driver's own work. Memory: real
trainings of MiniLM side by side. The whole takes about ten minutes on two CPU cores; `--write` makes
`results/scale.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import MANY_HEADLINES, finish, news_file, processor, table
from scale_costs import Costs
from scale_memory import memory_section, small
from scale_process import in_fresh_process, progress
from scale_rows import ALL_ROWS, rows_section
from scale_trials import costless_sweep

from lorasweep.tuning.quiet import quiet_environment
from lorasweep.tuning.trials.ray_access import guard_local_ray

LIBRARIES = ("torch", "transformers", "peft", "ray", "optuna", "mlflow", "pandas")
MLFLOW_AIM = 0.02


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rows: tuple[int, ...]
    rounds: int
    trials: tuple[int, ...]
    at_once: tuple[int, ...]
    memory: tuple[int, ...]


SHORT = Extent((5_000, ALL_ROWS), 1, (10,), (2,), (1, 2))
LONG = Extent((5_000, 10_000, 20_000, 40_000, ALL_ROWS), 3, (10, 30, 100, 300), (1, 2, 4, 8, 16), (1, 2, 3))


def trials_section(counts: Sequence[int]) -> list[str]:
    """The driver's work for each trial, by the number of trials, and MLflow's share of it."""
    lines, store_lines = [], []
    for trials in counts:
        progress(f"costless trials: {trials}")
        costs = in_fresh_process(costless_sweep, trials)
        tenth = max(2, trials // 10)
        grown = (costs.resident[-1] - costs.resident[0]) / (trials - 1)
        rest = costs.seconds - costs.ends[-1]
        lines.append(
            [
                str(trials),
                f"{costs.evaluations / trials:.1f}",
                f"{costs.rate(0, trials - 1):.3f}",
                f"{costs.rate(0, tenth):.3f}",
                f"{costs.rate(trials - 1 - tenth, trials - 1):.3f}",
                f"{costs.resident[0]:.0f} + {grown * 1000:.0f} kB a trial",
                f"{rest:.1f}",
            ]
        )
        store_lines.append([str(trials), *_store_cells(costs)])
    record = costs.sending / costs.sent
    a_trial = record * costs.records / len(costs.ends)
    head = [
        "trials",
        "evaluations a trial",
        "seconds a trial",
        "first tenth",
        "last tenth",
        "driver's memory, MB",
        "after the last trial, s",
    ]
    store_head = [
        "trials",
        "records a trial",
        "of these sent",
        "thread, ms a record",
        "of that processor, ms",
        "thread busy during trials",
        "end of the sweep, s",
        "driver waited, s",
    ]
    return [
        "## Trials",
        "Whole sweeps of trials that cost nothing: real Ray, Optuna's TPE on its study, ASHA over six rungs, records, "
        "checkpoints of an adapter, MLflow on SQLite, at the end the winner's test, three exports and the report. "
        "Seconds a trial are those from one trial's end to the next one's, workers having started.",
        table(head, lines),
        "MLflow has a thread of its own. Of a trial's records that wait, only the newest is sent, so a sweep as fast "
        "as this one sends fewer than there are. The driver waits for the thread at the sweep's end alone: for what "
        "is still unsent, the best adapters and the report.",
        table(store_head, store_lines),
        f"If every record were sent, MLflow would take {a_trial:.2f} s a trial, on its thread. So it takes at most "
        f"{MLFLOW_AIM:.0%} of a sweep one after another whose trials take {a_trial / MLFLOW_AIM:.0f} s or longer. "
        f"Its share of a real sweep's time is measured in `sweep.md`.",
    ]


def _store_cells(costs: Costs) -> list[str]:
    trials = len(costs.ends)
    return [
        f"{costs.records / trials:.1f}",
        f"{costs.sent / costs.records:.0%}",
        f"{costs.sending / costs.sent * 1000:.1f}",
        f"{costs.sending_cpu / costs.sent * 1000:.1f}",
        f"{costs.sending / costs.trials():.0%}",
        f"{costs.finishing:.1f}",
        f"{costs.waited:.1f}",
    ]


def at_once_section(counts: Sequence[int]) -> list[str]:
    """Trials a second, by how many run at once."""
    lines = []
    for at_once in counts:
        progress(f"costless trials: {at_once} at once")
        costs = in_fresh_process(costless_sweep, 3 * at_once + 20, at_once, False)
        count = len(costs.ends) - 1
        lines.append(
            [
                str(at_once),
                str(costs.workers),
                f"{costs.ends[0]:.1f}",
                f"{count / costs.trials():.2f}",
                f"{costs.evaluations / len(costs.ends) * count / costs.trials():.1f}",
            ]
        )
    head = [
        "trials at once",
        "worker processes",
        "until the first trial's end, s",
        "trials/s",
        "evaluations/s",
    ]
    return [
        "## Trials at once",
        f"Costless trials again, each on a core that Ray only counts; the machine has {processor()}. Workers wait for "
        "each other before their first trial, so that the rate holds for all of them at once. What they take to "
        "start is a matter of cores: each imports torch and the rest.",
        table(head, lines),
        "The rate is the driver's: it proposes, records and copies checkpoints for one trial after another, however "
        "many run. Trials that really train leave it idle for most of the time.",
    ]


def main() -> None:
    """Measure, print, and write if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--news", type=Path, help="folder of the real headlines, if LORASWEEP_NEWS names none"
    )
    parser.add_argument("--short", action="store_true", help="fewer sizes, one round")
    parser.add_argument("--write", action="store_true", help="write results/scale.md")
    options = parser.parse_args()
    quiet_environment()
    guard_local_ray(None)
    extent = SHORT if options.short else LONG
    source = news_file(MANY_HEADLINES, options.news)
    text = ("headline",) if source else ("headline", "short_description")
    texts = f"`{MANY_HEADLINES}`, headlines" if source else "the project's own made-up news, not real ones"
    sections = [
        ["# How cost grows", f"Texts: {texts}."],
        rows_section(source, text, extent.rows, extent.rounds),
        trials_section(extent.trials),
        at_once_section(extent.at_once),
        memory_section(small(source, text), extent.memory),
    ]
    said = [paragraph for section in sections for paragraph in section]
    command = f"python benchmarks/scale.py{' --short' * options.short} --write"
    finish(said, "scale.md", command, LIBRARIES, write=options.write)


if __name__ == "__main__":
    main()
