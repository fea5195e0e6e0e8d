"""Fit the known-good starts of a space to recorded curves.

    python benchmarks/fit_portfolio.py [--size 6] [--measure accuracy]

Reads the curves of `record_curves.py`, prints what portfolios are worth on the set that they are fitted without, and
`starts:` for `search_spaces/lora_cpu.yaml`, fitted on all sets. The first start is the one that is the best alone, on
average; each further one adds the most to the best of those before it. How: `portfolio.py`. Half a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portfolio import fit
from record_curves import CURVES
from search import load_sets
from search_tables import curve_table


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
    parser.add_argument("--measure", choices=("accuracy", "loss"), default="accuracy")
    options = parser.parse_args()
    sets = load_sets(options.curves)
    known = [dict(curve.settings) for curve in next(iter(sets.values()))]
    left_out = {
        name: [
            known[place]
            for place in fit([sets[other] for other in sets if other != name], 10, options.measure)
        ]
        for name in sets
    }
    print(*curve_table(left_out, sets), sep="\n\n", end="\n\n")
    print(
        "starts:",
        *(line(known[place]) for place in fit(list(sets.values()), options.size, options.measure)),
        sep="\n",
    )


if __name__ == "__main__":
    main()
