"""Fit the known-good starts of a space to recorded curves.

    python benchmarks/fit_portfolio.py [--size 6] [--measure accuracy] [--free]

Reads the curves of `record_curves.py`, prints what portfolios are worth on the set that they are fitted without, and
`starts:` for `search_spaces/lora_cpu.yaml`, fitted on all sets. The first start is the one that the space always had,
which no other beats alone by more than noise; with `--free` it is the best one alone by the curves. Each further one
adds the most to the best of those before it. How: `portfolio.py`. Half a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from portfolio import fit
from record_curves import CURVES
from search import load_sets
from search_curves import curve_table


def line(settings: Mapping[str, Any]) -> str:
    """One start as a line of a space's YAML; its rate to two digits."""
    values = {name: f"{value:.1e}" if name == "learning_rate" else value for name, value in settings.items()}
    return "  - {" + ", ".join(f"{name}: {value}" for name, value in values.items()) + "}"


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", type=Path, default=CURVES, help="the folder of the recorded curves")
    parser.add_argument("--size", type=int, default=6)
    parser.add_argument("--measure", choices=("accuracy", "loss"), default="loss")
    parser.add_argument("--free", action="store_true", help="do not keep the old start as the first one")
    options = parser.parse_args()
    sets = load_sets(options.curves)
    known = [dict(curve.settings) for curve in next(iter(sets.values()))]

    def starts(names: Collection[str], size: int) -> list[dict[str, Any]]:
        first = () if options.free else (0,)
        chosen = fit([sets[name] for name in names], size, measure=options.measure, first=first)
        return [known[place] for place in chosen]

    left_out = {name: starts(sets.keys() - {name}, 10) for name in sets}
    print(*curve_table(left_out, sets), sep="\n\n", end="\n\n")
    print("starts:", *map(line, starts(sets, options.size)), sep="\n")


if __name__ == "__main__":
    main()
