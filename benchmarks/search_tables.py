"""Tables and picture of `search.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib
import numpy as np
from common import table
from matplotlib import pyplot
from search_strategies import BEFORE, BUDGET, FOLLOWED, NOW, RANDOM
from surrogate import RUNGS

# Strategy → set → validation and held-out score, shape (2, seeds, cost × RUNGS).
Results = Mapping[str, Mapping[str, np.ndarray]]
VALIDATION, HELD_OUT = 0, 1
TENTH = BUDGET // 10
COLOURS = ("#64748b", "#7c3aed", "#2563eb", "#d97706", "#c2410c")


def reached(curve: np.ndarray, goal: float) -> float:
    """The cost, in full trials, at which a curve first has the goal; infinite if it never has."""
    there = curve >= goal - 1e-9
    return float(there.argmax() + 1) / RUNGS if there.any() else np.inf


def goals(results: Results, side: int) -> dict[str, float]:
    """Set → mean over the seeds of what random search without stopping has when its budget is spent."""
    return {name: float(found[side][:, -1].mean()) for name, found in results[RANDOM.name].items()}


def needed(found: Mapping[str, np.ndarray], goal: Mapping[str, float], side: int) -> list[float]:
    """The cost of each set at which the mean over the seeds reaches its goal."""
    return [reached(values[side].mean(axis=0), goal[name]) for name, values in found.items()]


def full_trials(cost: float, most: float) -> str:
    """A cost in full trials."""
    return f"{cost:.1f}" if np.isfinite(cost) else f"> {most:.0f}"


def share(cost: float, most: float) -> str:
    """A cost as a share of random search's."""
    return f"{cost / BUDGET:.0%}" if np.isfinite(cost) else f"> {most / BUDGET:.0%}"


def followed(found: Mapping[str, np.ndarray]) -> float:
    """The cost to which a strategy was replayed."""
    return float(next(iter(found.values())).shape[-1] / RUNGS)


def costs(results: Results) -> Iterator[str]:
    """What each strategy needs to reach random search's level, by held-out and by validation score."""
    names = list(next(iter(results.values())))
    texts = {
        HELD_OUT: f"## Cost to reach what random search has after {BUDGET} full trials\n\n"
        "By held-out accuracy: what the trial is worth, on rows that chose nothing, that has the best validation "
        "accuracy so far. In full trials, where the mean over the seeds first has random's level; median and worst "
        f"of the sets as shares of random's {BUDGET}. Last column: the seeds of all sets that have it by cost {TENTH}.",
        VALIDATION: "## The same by validation accuracy\n\n"
        "The score that chose the best trial, and so with its luck: the best of many scores of 400 rows. Most settings "
        "that are good reach a held-out level together; the luckiest score belongs to one recorded curve, which a "
        "strategy has to meet and to train to its end.",
    }
    for side, text in texts.items():
        goal = goals(results, side)
        rows = [["goal", *(f"{100 * goal[name]:.1f} %" for name in names), "", "", ""]]
        for strategy, found in results.items():
            most, each = followed(found), needed(found, goal, side)
            by_tenth = np.mean(
                [
                    (values[side][:, : TENTH * RUNGS] >= goal[name] - 1e-9).any(axis=1)
                    for name, values in found.items()
                ]
            )
            rows.append(
                [
                    strategy,
                    *(full_trials(cost, most) for cost in each),
                    share(float(np.median(each)), most),
                    share(max(each), most),
                    f"{by_tenth:.0%}",
                ]
            )
        yield text
        yield table(["", *names, "median", "worst", f"by {TENTH}"], rows)


def short(results: Results) -> Iterator[str]:
    """What strategies still lack at a tenth and a fifth of random search's cost."""
    names = list(next(iter(results.values())))
    yield (
        f"## Points short of it at cost {TENTH} and {2 * TENTH}\n\n"
        f"Held-out accuracy less than random search has after {BUDGET} full trials, in points, at a tenth / a fifth of "
        "its cost; 0 where it is reached. The difference between two adapters has itself a standard error of about one "
        "point on 800 rows, two and a half on TREC's 138."
    )
    goal, rows = goals(results, HELD_OUT), []
    for strategy, found in results.items():
        lacks = np.array(
            [
                [
                    max(0.0, 100 * (goal[name] - values[HELD_OUT][:, cost * RUNGS - 1].mean()))
                    for cost in (TENTH, 2 * TENTH)
                ]
                for name, values in found.items()
            ]
        )
        pairs = [*lacks, np.median(lacks, axis=0), lacks.max(axis=0)]
        rows.append([strategy, *(f"{tenth:.1f} / {fifth:.1f}" for tenth, fifth in pairs)])
    yield table(["", *names, "median", "worst"], rows)


def scores(results: Results) -> Iterator[str]:
    """Held-out accuracy at some costs, and the gap to what was before at the largest."""
    names = list(next(iter(results.values())))
    yield (
        "## Held-out accuracy at equal cost\n\n"
        f"Mean over the seeds, in percent. Last row: what {NOW.name} has more than {BEFORE.name}, in points, at cost "
        f"{FOLLOWED}, ± the standard error of the differences seed by seed."
    )
    rows = []
    for cost in (2, TENTH, 8, FOLLOWED):
        rows += [
            [
                f"{strategy}, cost {cost}",
                *(f"{100 * found[name][HELD_OUT][:, cost * RUNGS - 1].mean():.1f}" for name in names),
            ]
            for strategy, found in results.items()
        ]
    gaps = [gap(results, NOW.name, BEFORE.name, name, FOLLOWED) for name in names]
    rows.append(["gap", *(f"{each.mean():+.1f} ± {error(each):.1f}" for each in gaps)])
    yield table(["", *names], rows)


def gap(results: Results, strategy: str, other: str, name: str, cost: int) -> np.ndarray:
    """Held-out points that one strategy has more than another on a set, seed by seed."""
    at = cost * RUNGS - 1
    difference: np.ndarray = results[strategy][name][HELD_OUT][:, at] - results[other][name][HELD_OUT][:, at]
    return 100 * difference


def error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def changes(title: str, base: str, results: Results) -> Iterator[str]:
    """Strategies against one of them: cost, and gaps at two costs."""
    names = list(next(iter(results.values())))
    yield (
        f"## {title}\n\n"
        f"Held-out accuracy. Cost to reach random search's level, median and worst of the sets; points more than "
        f"“{base}” at equal cost, mean of the sets (worst set), ± the standard error of the seeds."
    )
    goal, rows = goals(results, HELD_OUT), []
    for strategy, found in results.items():
        if strategy == RANDOM.name:
            continue
        most, each = followed(found), needed(found, goal, HELD_OUT)
        cells = []
        for cost in (TENTH, FOLLOWED):
            by_set = np.array([gap(results, strategy, base, name, cost) for name in names])
            mean = by_set.mean(axis=0)
            worst = by_set.mean(axis=1).min()
            cells.append("" if strategy == base else f"{mean.mean():+.2f} ± {error(mean):.2f} ({worst:+.1f})")
        rows.append([strategy, share(float(np.median(each)), most), share(max(each), most), *cells])
    yield table(["", "median", "worst", f"at cost {TENTH}", f"at cost {FOLLOWED}"], rows)


def notes() -> str:
    """How the figures are to be read."""
    return (
        "## How to read this\n\n"
        f"- Random search draws {BUDGET} settings, and the surrogate answers with one of the recorded curves: after "
        f"{BUDGET} trials it has met most of those, so its level is near the best recorded one, not that of a space "
        "without end.\n"
        "- The same settings get the same curve, with the luck of its seed and of its rows. Held-out rows take the "
        "luck of the validation rows out; that of the seed stays. There are 800 of headlines, 400 of records, "
        "Subj and movie reviews, 260 of AG News and 138 of TREC.\n"
        "- ± is over the seeds of the search alone: another training of the same settings, other rows and other sets "
        "would move a figure by more.\n"
        f"- Which starts “{NOW.name}” has on a set was fitted without that set. How many, the shape of halving and the "
        "objective were chosen by these same tables, so its figures are somewhat flattered: a sweep on other texts "
        "should be expected between them and those of its neighbours in the second table of changes.\n"
        f"- “{BEFORE.name}”: TPE + ASHA with factor 3 from the first of six evaluations, all by accuracy, one start. "
        f"“{NOW.name}”: {NOW.starts} starts, of which the first is the same one and is never stopped; ASHA with "
        f"factor {NOW.search.reduction_factor} from evaluation {NOW.search.grace_rungs} of {NOW.rungs}; all "
        f"by {NOW.stopped_by}.\n"
        f"- Strategies with ASHA are sized for a cost of {FOLLOWED} and replayed to it, the others for {BUDGET}."
    )


def draw(results: Results, path: Path) -> None:
    """Mean held-out accuracy of the best trial so far against cost; a panel for each set."""
    matplotlib.use("agg")
    names, goal = list(next(iter(results.values()))), goals(results, HELD_OUT)
    figure, axes = pyplot.subplots(2, (len(names) + 1) // 2, figsize=(10, 6), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for colour, (strategy, found) in zip(COLOURS, results.items(), strict=True):
            mean = 100 * found[name][HELD_OUT].mean(axis=0)
            axis.plot(np.arange(1, len(mean) + 1) / RUNGS, mean, color=colour, label=strategy)
        low = min(100 * found[name][HELD_OUT][:, 2 * RUNGS].mean() for found in results.values())
        high = max(100 * found[name][HELD_OUT].mean(axis=0).max() for found in results.values())
        axis.axhline(100 * goal[name], color="black", linewidth=0.8, linestyle=":")
        axis.axvline(TENTH, color="black", linewidth=0.8, linestyle=":")
        axis.set_xscale("log")
        axis.set_xticks((1, 2, 4, 8, 20, 40), ("1", "2", "4", "8", "20", "40"))
        axis.minorticks_off()
        axis.set(xlim=(0.9, BUDGET), ylim=(low - 0.5, high + 0.3), title=name)
        axis.grid(alpha=0.25)
    for axis in axes[-1]:
        axis.set_xlabel("training cost, full trials")
    for axis in axes[:, 0]:
        axis.set_ylabel("held-out accuracy, %")
    axes[0][0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
