"""What `search.py` says of the recorded curves themselves: how alike, how telling, and which of them to try first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from common import table
from record_curves import SETS
from scipy.stats import spearmanr
from surrogate import Curve, Surrogate

SIZES = (1, 2, 3, 4, 6, 8, 10)


def early(sets: Mapping[str, Sequence[Curve]]) -> Iterator[str]:
    """How well early scores rank the trials."""
    yield (
        "## What an early evaluation tells\n\n"
        "Spearman's rank correlation of the running best validation accuracy or loss after so many of the 12 "
        "evaluations with the held-out accuracy at the trial's best evaluation, over a set's curves: mean of the sets "
        "(worst set)."
    )
    steps, rows = (1, 2, 3, 4, 6, 8, 12), []
    for metric, better in (("accuracy", max), ("loss", min)):
        cells = []
        for step in steps:
            each = []
            for curves in sets.values():
                seen = [better(curve.validation[metric][:step]) for curve in curves]
                each.append(spearmanr(seen, [curve.worth() for curve in curves]).statistic)
            found = np.array(each) if metric == "accuracy" else -np.array(each)
            cells.append(f"{found.mean():.2f} ({found.min():.2f})")
        rows.append([metric, *cells])
    yield table(["after", *map(str, steps)], rows)


def curve_table(
    portfolios: Mapping[str, Sequence[Any]], sets: Mapping[str, Sequence[Curve]]
) -> Iterator[str]:
    """What the first few of a portfolio are worth on the set it was fitted without."""
    yield (
        "## Portfolios on the set that they were fitted without\n\n"
        "The first k starts trained to their end; held-out accuracy in percent of the one with the best validation "
        "accuracy. k = 1 is the start that the space always had. Last the best of all recorded settings, so chosen."
    )
    rows = []
    for name, curves in sets.items():
        known = [curve.settings for curve in curves]
        places = [known.index(start) for start in portfolios[name]]
        chosen = [max(places[:size], key=lambda place: curves[place].best()) for size in SIZES]
        best = max(range(len(curves)), key=lambda place: curves[place].best())
        cells = [100 * curves[place].worth() for place in (*chosen, best)]
        rows.append([name, *(f"{cell:.1f}" for cell in cells)])
    means = np.array([[float(cell) for cell in row[1:]] for row in rows]).mean(axis=0)
    rows.append(["mean", *(f"{mean:.1f}" for mean in means)])
    yield table(["", *(f"k = {size}" for size in SIZES), "best of all"], rows)


def about(surrogates: Mapping[str, Surrogate], seeds: int) -> str:
    """What was recorded, and how far the surrogate can be believed."""
    rows = []
    for name, surrogate in surrogates.items():
        curves, errors = surrogate.curves, surrogate.leave_one_out()
        worth = 100 * np.array([curve.worth() for curve in curves])
        validation = SETS[name].validation_rows
        middle = np.median([curve.best() for curve in curves])
        rows.append(
            [
                name,
                f"{SETS[name].train_rows} / {validation}",
                f"{np.mean([sum(curve.seconds) for curve in curves]):.0f} s",
                f"{worth.min():.1f} / {np.median(worth):.1f} / {worth.max():.1f}",
                f"{100 * np.sqrt(middle * (1 - middle) / validation):.1f}",
                f"{100 * errors.nearest:.1f} / {100 * errors.mean:.1f}",
                f"{errors.rank_correlation:.2f}",
            ]
        )
    head = ["set", "rows", "a curve", "held-out accuracy", "± valid.", "neighbour / mean", "rank"]
    count = len(next(iter(surrogates.values())).curves)
    return (
        f"{count} recorded curves of the same settings on each set; {seeds} seeds. Rows: to train on / to validate on. "
        "Held-out accuracy in percent: worst, middle and best curve. ± valid.: the standard error of the middle "
        "validation accuracy, in points. Last columns: mean absolute error in points of a curve's held-out accuracy "
        "predicted by its nearest neighbour, and by the mean of all others; rank correlation of the former.\n\n"
        + table(head, rows)
    )
