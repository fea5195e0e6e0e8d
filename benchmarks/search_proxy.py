"""What a search on a part of the rows tells about training on all of them, from curves of both sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import table
from scipy.stats import spearmanr
from surrogate import Curve, load_curves, recorded

FINALISTS = (1, 2, 3, 5)
# Settings recorded at both sizes, below which nothing is said of how well one tells the other.
FEWEST = 5


class Pair(NamedTuple):
    """A set's curves on a part and on more rows; `rows` says how many are trained on."""

    rows: str
    part: list[Curve]
    whole: list[Curve]


def proxy_parts(folder: Path) -> Iterator[str]:
    """The tables of what was recorded at two sizes; nothing without it."""
    pairs: dict[str, Pair] = {}
    for path in sorted(folder.glob("*.jsonl")):
        name = re.fullmatch(r"(\w+)-\d+", path.stem)
        if name and (folder / f"{name[1]}.jsonl").is_file():
            curves = load_curves(path)
            if len(curves) >= FEWEST:
                part = folder / f"{name[1]}.jsonl"
                rows = f"{recorded(part, 'train_rows')[0]} / {recorded(path, 'train_rows')[0]}"
                pairs[path.stem] = Pair(rows, load_curves(part), curves)
    if pairs:
        yield from agreement(pairs)
    yield from lowered_rates(folder)
    yield from ladders(folder)


def agreement(pairs: dict[str, Pair]) -> Iterator[str]:
    """Rank correlation, and what the best few of the part are worth on all rows."""
    yield (
        "## Decided on a part, trained on the whole\n\n"
        "The same settings on a part and on more rows, with the same epochs. Rank: rank correlation of validation loss "
        "and of validation accuracy on the part with held-out accuracy on the whole, over all and over the better half "
        "of the settings. Then the held-out accuracy on the whole, in percent, of the best by validation accuracy of "
        "k finalists, which are the best on the part by loss (by accuracy), and of all. "
        "Rows: trained on, of the part and of the whole."
    )
    rows = []
    for name, (trained, part, whole) in pairs.items():
        part = part[: len(whole)]
        worth = np.array([curve.worth() for curve in whole])
        losses = np.array([curve.best("loss") for curve in part])
        accuracies = np.array([curve.best() for curve in part])
        better = worth >= np.median(worth)
        cells = [
            f"{spearmanr(-losses[which], worth[which]).statistic:.2f} / "
            f"{spearmanr(accuracies[which], worth[which]).statistic:.2f}"
            for which in (np.full(len(worth), True), better)
        ]
        for count in FINALISTS:
            by_loss = winner(whole, np.argsort(losses, kind="stable")[:count])
            by_accuracy = winner(whole, np.argsort(-accuracies, kind="stable")[:count])
            cells.append(f"{100 * by_loss:.1f} ({100 * by_accuracy:.1f})")
        rows.append([name, trained, f"{len(whole)}", *cells, f"{100 * winner(whole, range(len(whole))):.1f}"])
    finalists = (f"k = {count}" for count in FINALISTS)
    head = ["", "rows", "settings", "rank, all", "better half", *finalists, "all"]
    yield table(head, rows)


def winner(curves: Sequence[Curve], places: Sequence[int] | np.ndarray) -> float:
    """Held-out accuracy of the one with the best validation accuracy."""
    return max((curves[place] for place in places), key=Curve.best).worth()


def lowered_rates(folder: Path) -> Iterator[str]:
    """The best settings of the part on the whole, with their rates as searched, and lowered as `--proxy` does it."""
    rows = []
    for path in sorted(folder.glob("*-finalists.jsonl")):
        name = path.stem.removesuffix("-finalists")
        whole, lowered = load_curves(folder / f"{name}.jsonl"), load_curves(path)
        chosen = recorded(path, "number")
        if len(chosen) < 2 or max(chosen) >= len(whole):
            continue
        searched = [whole[number] for number in chosen]
        factors = [
            after.settings["learning_rate"] / before.settings["learning_rate"]
            for before, after in zip(searched, lowered, strict=True)
        ]
        before, after = (
            np.array([100 * curve.worth() for curve in curves]) for curves in (searched, lowered)
        )
        losses = [np.mean([curve.best("loss") for curve in curves]) for curves in (searched, lowered)]
        error = np.std(after - before, ddof=1) / len(chosen) ** 0.5
        cells = [f"{len(chosen)}", f"{np.mean(factors):.2f}"]
        cells += [f"{before.mean():.1f} ({before.min():.1f})", f"{losses[0]:.3f}"]
        cells += [f"{after.mean():.1f} ({after.min():.1f})", f"{losses[1]:.3f}"]
        rows.append([name, *cells, f"{(after - before).mean():+.1f} ± {error:.1f}"])
    if rows:
        yield (
            "## Finalists with a lower rate\n\n"
            "The best settings on the part by validation accuracy, trained on the whole: with the rate that was "
            "searched, and with that rate times the factor of `--proxy`. Held-out accuracy in percent, mean (worst), "
            "and mean validation loss; last, what the lower rate brings in points of accuracy, ± the standard error of "
            "the differences."
        )
        yield table(["", "settings", "factor", "as searched", "loss", "lowered", "loss", "gain"], rows)


def ladders(folder: Path) -> Iterator[str]:
    """The start at several learning rates, on a part and on the whole."""
    paths = sorted(folder.glob("*-rates.jsonl"))
    if not paths:
        return
    curves = {path.stem.removesuffix("-rates"): load_curves(path) for path in paths}
    rates = [curve.settings["learning_rate"] for curve in next(iter(curves.values()))]
    yield (
        "## Does the best rate move with the number of steps?\n\n"
        "The old start at several learning rates, each set on a part and on more rows, three epochs of both: "
        "validation loss and held-out accuracy in percent. Peak: the rate at the vertex of a parabola through the log "
        "rates around the least mean of validation and held-out loss."
    )
    rows = []
    for name, ladder in curves.items():
        cells = [f"{curve.best('loss'):.3f} / {100 * curve.worth():.1f}" for curve in ladder]
        rows.append([name, *cells, f"{peak(ladder):.1e}"])
    yield table(["", *(f"{rate:.1e}" for rate in rates), "peak"], rows)


def peak(ladder: Sequence[Curve]) -> float:
    """The learning rate at the vertex of a parabola through the best point of a ladder and its neighbours."""
    rates = np.log([curve.settings["learning_rate"] for curve in ladder])
    losses = np.array([(curve.best("loss") + curve.worth("loss")) / 2 for curve in ladder])
    middle = int(np.clip(losses.argmin(), 1, len(ladder) - 2))
    if losses.argmin() != middle:
        return float(np.exp(rates[losses.argmin()]))
    around = slice(middle - 1, middle + 2)
    square, linear, _ = np.polyfit(rates[around], losses[around], 2)
    return float(np.exp(-linear / (2 * square)))
