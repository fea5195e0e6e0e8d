"""At equal training cost, how good is the best trial that TPE with ASHA finds, and what does each add?

    python benchmarks/search.py [--no-start] [--defaults] [--write]

Replays the curves of `record_curves.py` and trains nothing: `surrogate.py` answers a proposal with the
nearest recorded curve. Searcher, sampler, scheduler and space are those of `lorasweep run`; in Ray's place,
simulated workers take the rungs' recorded seconds. Cost is counted over all workers in full trials, a rung a
sixth of one. Prints a Markdown table: of the strategies, or with `--defaults` of TPE with ASHA and other values
of its defaults. `--write` makes `results/search.md` of both, and `results/search.png`. About four minutes on one
CPU core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import optuna
from common import RESULTS, made_by, processor, table
from matplotlib import pyplot
from record_curves import SETS
from surrogate import RUNGS, Contender, Surrogate, load_curves, replay

from lorasweep.search_spaces.space import SearchSpace, load_space
from lorasweep.tuning.quiet import quiet_environment, quiet_libraries
from lorasweep.tuning.record.config import SearchSettings

SPACE = "lora_cpu"
COSTS = (2, 5, 10, 20, 40)
SIZES = (5, 10, 20)
COMMANDS = "python benchmarks/record_curves.py FOLDER\n    python benchmarks/search.py --write"
LIBRARIES = ("optuna", "ray", "numpy", "matplotlib", "torch", "peft")
STRATEGY_NOTE = (
    "Mean best validation accuracy so far (10th to 90th percentile) over the seeds, two trials at once. Cost is "
    "in full trials of training, over both workers. Each sweep is sized for the largest cost, so TPE begins after "
    "10 random trials. Last column: the cost at which a strategy's mean reaches the one that random alone has at "
    "the end; the aim for TPE + ASHA is a quarter or less."
)
DEFAULTS_NOTE = (
    "Mean best validation accuracy of sweeps sized for each cost, ± its standard error. Other values are varied "
    "alone; in brackets the difference from the shipped ones in points, ± the standard error of the differences "
    "seed by seed; other curves may move a difference by more. Trials at once save time, which equal cost does "
    "not show."
)
COLOURS = ("#c2410c", "#2563eb", "#7c3aed", "#64748b")


STRATEGIES = (
    Contender("TPE + ASHA (shipped)"),
    Contender("random + ASHA", SearchSettings(sampler="random")),
    Contender("TPE alone", SearchSettings(asha=False)),
    Contender("random alone", SearchSettings(sampler="random", asha=False)),
)
SHIPPED = Contender("shipped: factor 3, grace 1, a quarter of the trials (at most 10) random, 2 at once")
DEFAULTS = (
    *(Contender(f"reduction factor {n}", SearchSettings(reduction_factor=n)) for n in (2, 4)),
    Contender("grace 2", SearchSettings(grace_rungs=2)),
    *(Contender(f"{n} start-up trials", startup=n) for n in (5, 10, 20)),
    *(Contender(f"{n} at once", concurrency=n) for n in (1, 4, 8)),
)


class Bench:
    """Contenders on one surrogate, each with the same seeds."""

    def __init__(self, surrogate: Surrogate, seeds: int) -> None:
        space = load_space(SPACE)
        assert isinstance(space, SearchSpace)
        self.surrogate, self.seeds = surrogate, seeds
        self.spaces = {True: space, False: replace(space, starts=())}

    def run(self, contender: Contender, cost: int, start: bool) -> np.ndarray:
        """Best accuracy so far, of a sweep that was planned for this cost; shape (seeds, cost × RUNGS)."""
        one = partial(replay, contender.sized(cost), self.spaces[start], self.surrogate, cost)
        return np.stack([one(seed) for seed in range(self.seeds)])

    def strategies(self, start: bool) -> dict[str, np.ndarray]:
        """All strategies to the largest cost."""
        return {contender.name: self.run(contender, COSTS[-1], start) for contender in STRATEGIES}

    def defaults(self, start: bool) -> Iterator[list[str]]:
        """Rows of what sweeps planned for each cost find: the shipped values, then others against them."""
        shipped = [self.run(SHIPPED, cost, start)[:, -1] for cost in SIZES]
        yield [
            SHIPPED.name,
            *(f"{percent(results.mean())} ± {100 * error(results):.1f}" for results in shipped),
        ]
        for contender in DEFAULTS:
            results = [self.run(contender, cost, start)[:, -1] for cost in SIZES]
            # The same seeds draw the same first trials, so differences are less noisy than the means.
            pairs = [(theirs.mean(), theirs - ours) for theirs, ours in zip(results, shipped, strict=True)]
            yield [
                contender.name,
                *(
                    f"{percent(mean)} ({100 * gap.mean():+.1f} ± {100 * error(gap):.1f})"
                    for mean, gap in pairs
                ),
            ]


def error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def percent(share: float) -> str:
    """A share as a table shows it."""
    return f"{share:.1%}"


def strategy_rows(results: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Mean and 10th to 90th percentile at each cost, and when random's last mean is reached."""
    goal = results[STRATEGIES[-1].name].mean(axis=0)[-1]
    for name, best in results.items():
        cells = []
        for cost in COSTS:
            at = best[:, cost * RUNGS - 1]
            low, high = np.percentile(at, [10, 90])
            cells.append(f"{percent(at.mean())} ({100 * low:.1f}–{100 * high:.1f})")
        reached = best.mean(axis=0) >= goal
        cost_there = (int(reached.argmax()) + 1) / RUNGS
        share = f"{cost_there:.1f} ({cost_there / COSTS[-1]:.0%})" if reached.any() else "not reached"
        yield [name, *cells, share]


def draw(panels: dict[str, dict[str, np.ndarray]], ceiling: float, path: Path) -> None:
    """Best accuracy so far against cost, mean and 10th to 90th percentile; a panel for each title."""
    matplotlib.use("agg")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(9.2, 4.2), sharey=True, squeeze=False)
    for axis, (title, results) in zip(axes[0], panels.items(), strict=True):
        for colour, (name, best) in zip(COLOURS, results.items(), strict=True):
            spent = np.arange(1, best.shape[1] + 1) / RUNGS
            if name in (STRATEGIES[0].name, STRATEGIES[-1].name):  # four bands would hide each other
                low, high = 100 * np.percentile(best, [10, 90], axis=0)
                axis.fill_between(spent, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.plot(spent, 100 * best.mean(axis=0), color=colour, label=name)
        axis.axhline(100 * ceiling, color="black", linewidth=0.8, linestyle=":", label="best recorded")
        axis.set_xscale("log")
        axis.set_xticks(COSTS, [str(cost) for cost in COSTS])
        axis.minorticks_off()
        axis.set(xlim=(COSTS[0], COSTS[-1]), title=title, xlabel="training cost, full trials")
        axis.grid(alpha=0.25)
    lowest = min(
        np.percentile(best[:, COSTS[0] * RUNGS - 1], 10)
        for results in panels.values()
        for best in results.values()
    )
    axes[0][0].set_ylim(100 * lowest - 1, 100 * ceiling + 0.5)
    axes[0][0].set_ylabel("best validation accuracy so far, %")
    axes[0][-1].legend(
        loc="lower right", fontsize=8.5, title="mean; bands 10th–90th percentile", title_fontsize=8.5
    )
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def about(surrogate: Surrogate, seeds: int) -> str:
    """What a reader needs to judge the tables."""
    curves, errors = surrogate.curves, surrogate.leave_one_out()
    best = [curve.best for curve in curves]
    middle, rows = float(np.median(best)), SETS["headlines"].validation_rows
    return (
        f"{len(curves)} recorded curves, best accuracy {min(best):.1%} to {max(best):.1%} "
        f"(median {middle:.1%}), {sum(len(curve.scores) < RUNGS for curve in curves)} diverged; "
        f"{seeds} seeds.\n"
        f"The surrogate's mean absolute error, a curve predicted by its nearest neighbour: "
        f"{100 * errors.nearest:.1f} points ({100 * errors.mean:.1f} if predicted by the mean of all others), "
        f"rank correlation {errors.rank_correlation:.2f}. An accuracy over {rows} rows has itself a "
        f"standard error of about {100 * np.sqrt(middle * (1 - middle) / rows):.1f} points, so luck "
        "too chooses the best curve; it is the same luck for every contender."
    )


def main() -> None:
    """Replay, print, and write if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", type=Path, default=RESULTS / "curves.jsonl")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--no-start", action="store_true", help="only without the space's known-good start")
    parser.add_argument("--defaults", action="store_true", help="compare the defaults of TPE with ASHA")
    parser.add_argument("--write", action="store_true", help="both tables and the picture, into a folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder that --write writes to")
    options = parser.parse_args()
    quiet_libraries()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench = Bench(Surrogate(load_curves(options.curves)), options.seeds)
    parts = ["# Search strategies on replayed curves", about(bench.surrogate, options.seeds)]
    titles = {True: "The space's known-good start first, as shipped", False: "Without the known-good start"}
    starts = [False] if options.no_start else [True, False]
    panels = {}
    if options.write or not options.defaults:
        head = ["strategy", *(f"cost {cost}" for cost in COSTS), f"cost to reach random alone's {COSTS[-1]}"]
        for start in starts:
            results = panels[titles[start]] = bench.strategies(start)
            parts += [f"## {titles[start]}", STRATEGY_NOTE, table(head, strategy_rows(results))]
    if options.write or options.defaults:
        head = ["TPE + ASHA", *(f"cost {cost}" for cost in SIZES)]
        for start in starts:
            parts += [f"## Defaults. {titles[start]}", DEFAULTS_NOTE, table(head, bench.defaults(start))]
    print("\n\n".join(parts))
    if options.write:
        best = max(curve.best for curve in bench.surrogate.curves)
        draw(panels, best, options.out / "search.png")
        made = made_by(COMMANDS, LIBRARIES, processor(1))
        (options.out / "search.md").write_text("\n\n".join([*parts, made]) + "\n")


if __name__ == "__main__":
    quiet_environment()
    main()
