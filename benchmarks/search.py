"""How much training does each search strategy need, on six sets of texts, and what does each part of ours bring?

    python benchmarks/search.py [--seeds 50] [--levers] [--write]

Replays the curves of `record_curves.py` and trains nothing: `surrogate.py` answers a proposal with the nearest recorded
curve. Searcher, sampler, scheduler and space are those of `lorasweep run`; in Ray's place, two simulated workers take
the recorded seconds. Cost is counted over both workers in full trials; one of a trial's 12 evaluations costs a twelfth.
Portfolios of starts are fitted without the set they are tried on (`portfolio.py`). Prints Markdown tables, with
`--levers` also what each change does alone, and what each default does to the whole. `--write` makes
`results/search.md` of all, and `results/search.png`. About ten minutes on one CPU core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from common import RESULTS, made_by, processor
from portfolio import fit
from record_curves import CURVES, SETS, SPACE
from search_curves import about, curve_table, early
from search_proxy import proxy_parts
from search_replay import Strategy, replay
from search_strategies import BEFORE, BUDGET, FOLLOWED, LEVERS, NOW, OTHERS, PEERS, RANDOM
from search_tables import changes, costs, draw, notes, scores, short
from surrogate import Curve, Surrogate, load_curves

from lorasweep.search_spaces.space import SearchSpace, load_space
from lorasweep.tuning.quiet import quiet_environment, quiet_libraries

COMMANDS = (
    "for name in headlines records ag_news trec subj movie_reviews; do\n"
    "        python benchmarks/record_curves.py FOLDER --set $name; done\n"
    "    for size in '--set trec --train-rows 4252 --curves 32' '--set records --train-rows 2400 --curves 13'; do\n"
    "        python benchmarks/record_curves.py FOLDER $size\n"
    "        python benchmarks/record_curves.py FOLDER $size --finalists 5; done\n"
    "    for size in '--set trec' '--set trec --train-rows 300' '--set trec --train-rows 4252' \\\n"
    "            '--set records' '--set records --train-rows 150'; do\n"
    "        python benchmarks/record_curves.py FOLDER $size --rates 2.5e-4 5e-4 1e-3 2e-3 4e-3 8e-3; done\n"
    "    python benchmarks/search.py --write"
)
LIBRARIES = ("optuna", "ray", "numpy", "scikit-learn", "matplotlib", "torch", "peft")


@dataclass
class Bench:
    """Strategies on all sets, each with the same seeds."""

    sets: dict[str, list[Curve]]
    seeds: int
    results: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        space = load_space(SPACE)
        assert isinstance(space, SearchSpace)
        self.space = space
        self.surrogates = {name: Surrogate(curves) for name, curves in self.sets.items()}
        self.portfolios = {
            kept: {name: self.portfolio(name, kept) for name in self.sets} for kept in (True, False)
        }

    def portfolio(self, without: str, kept: bool, size: int = 10) -> list[dict[str, Any]]:
        """Starts fitted on all other sets, the old start first or not."""
        others = [curves for name, curves in self.sets.items() if name != without]
        numbers = fit(others, size, first=(0,) if kept else ())
        return [dict(others[0][number].settings) for number in numbers]

    def run(self, strategy: Strategy, name: str) -> np.ndarray:
        """Validation and held-out score of the best trial so far; shape (2, seeds, cost × RUNGS)."""
        key = (strategy.name, name)
        if key not in self.results:
            # Without stopping, a trial costs so much that few are simulated.
            cost = FOLLOWED if strategy.search.asha else BUDGET
            starts = self.portfolios[strategy.kept][name]
            outcomes = [
                replay(strategy, self.space, starts, self.surrogates[name], cost, seed)
                for seed in range(self.seeds)
            ]
            self.results[key] = np.array(outcomes).swapaxes(0, 1)
        return self.results[key]

    def all(self, strategies: Sequence[Strategy]) -> dict[str, dict[str, np.ndarray]]:
        """Strategy → set → what it finds."""
        return {each.name: {name: self.run(each, name) for name in self.sets} for each in strategies}


def load_sets(folder: Path) -> dict[str, list[Curve]]:
    """The sets whose curves are in the folder, without those of which some settings are not recorded yet."""
    paths = {name: folder / f"{name}.jsonl" for name in SETS}
    sets = {name: load_curves(path) for name, path in paths.items() if path.is_file()}
    count = max(len(curves) for curves in sets.values())
    for name, curves in sets.items():
        if len(curves) < count:
            print(f"{name} is left out: {len(curves)} of {count} curves", file=sys.stderr)
    return {name: curves for name, curves in sets.items() if len(curves) == count}


def main() -> None:
    """Replay, print, and write if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", type=Path, default=CURVES, help="the folder of the recorded curves")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--levers", action="store_true", help="also each change alone, and other defaults")
    parser.add_argument("--write", action="store_true", help="all tables and the picture, into a folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder that --write writes to")
    options = parser.parse_args()
    quiet_libraries()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench = Bench(load_sets(options.curves), options.seeds)
    main_results = bench.all([RANDOM, *PEERS, BEFORE, NOW])
    parts = ["# Search strategies on replayed curves", about(bench.surrogates, options.seeds)]
    parts += [*costs(main_results), *short(main_results), *scores(main_results)]
    if options.levers or options.write:
        reference = bench.all([RANDOM, BEFORE, NOW])
        parts += [*changes("Each change alone", BEFORE.name, reference | bench.all(LEVERS))]
        parts += [*changes("Other values of the defaults", NOW.name, reference | bench.all(OTHERS))]
    parts += [
        *early(bench.sets),
        *curve_table(bench.portfolios[True], bench.sets),
        *proxy_parts(options.curves),
        notes(),
    ]

    print("\n\n".join(parts))
    if options.write:
        draw(main_results, options.out / "search.png")
        made = made_by(COMMANDS, LIBRARIES, processor(1))
        (options.out / "search.md").write_text("\n\n".join([*parts, made]) + "\n")


if __name__ == "__main__":
    quiet_environment()
    main()
