"""Pictures of what a sweep searched: what mattered, and each setting against the score.

Each function gives one figure, or None where there is nothing to draw; a score that is missing or not finite is
not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from lorasweep.search_spaces.domains import show
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.record.words import METRIC_NAMES
from lorasweep.tuning.report.plots.style import (
    COMPLETED,
    WINNER,
    add_legend,
    draw_dots,
    new_figure,
    plain_axes,
    score_axis,
    score_range,
    setting_name,
    short,
    tick_text,
    write_title,
)
from lorasweep.tuning.report.searched import Searched, importance_of, scored_trials


def importances(searched: Searched, trials: Sequence[TrialRecord], metric: Metric) -> Figure | None:
    """A bar a searched setting, as `importance_of` reckons them; None with too few trials."""
    shares = importance_of(searched, trials, metric)
    if not shares:
        return None
    figure, axes = new_figure("What decided who is among the best", height=1.1 + 0.32 * len(shares))
    names = [setting_name(name) for name in shares][::-1]
    bars = axes.barh(range(len(names)), list(shares.values())[::-1], color=COMPLETED, height=0.62)
    axes.bar_label(bars, fmt=lambda share: f"{share:.0%}", padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), labels=names, parse_math=False)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"importance (PED-ANOVA, {len(scored_trials(trials))} trials)")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlim(0, max(shares.values()) * 1.12)
    return figure


def slices(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> Figure | None:
    """Score against each searched setting, one small plot each; the axis is logarithmic where the space is."""
    scored = scored_trials(trials)
    names = drawn_settings(searched, scored)
    if not names:
        return None
    rows, columns = panel_grid(len(names))
    figure = Figure(figsize=(max(4.2, 2.5 * columns), 1.0 + 2.4 * rows), layout="constrained")
    write_title(figure, f"Validation {METRIC_NAMES[metric]} against each setting")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, name in zip(grid, names, strict=False):
        kind = searched.distributions[name]
        having = [trial for trial in scored if name in searched.values[trial.id]]
        values = [searched.values[trial.id][name] for trial in having]
        plain_axes(axes)
        if isinstance(kind, CategoricalDistribution):
            xs = [choice_place(kind, value, trial) for value, trial in zip(values, having, strict=True)]
            texts = [short(show(choice), 16) for choice in kind.choices]
            steep = sum(map(len, texts)) > 26
            turn: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if steep else {}
            axes.set_xticks(range(len(texts)), labels=texts, fontsize=8, parse_math=False, **turn)
            axes.set_xlim(-0.6, len(texts) - 0.4)
        else:
            xs = values
            _number_axis(axes, kind)
        draw_dots(axes, xs, having, winner)
        axes.set_title(setting_name(name), fontsize=9.5, parse_math=False)
        score_axis(axes, metric, [trial.score or 0.0 for trial in scored], label=axes in grid[::columns])
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    add_legend(figure, scored, winner, marks="stars")
    return figure


def panel_grid(panels: int) -> tuple[int, int]:
    """Rows and columns of small plots side by side: three in a row, but four as two by two."""
    columns = 2 if panels == 4 else min(3, panels)
    return math.ceil(panels / columns), columns


def drawn_settings(searched: Searched, trials: Sequence[TrialRecord]) -> list[str]:
    """The searched settings that some of these trials have a value of."""
    return [name for name in searched.distributions if any(name in searched.values[t.id] for t in trials)]


def choice_place(kind: CategoricalDistribution, value: Any, trial: TrialRecord) -> float:
    """Where a trial stands beside its choice's tick: trials of one choice are set apart, alike in each drawing."""
    return float(kind.choices.index(value) + (trial.number * 0.618 % 1 - 0.5) * 0.36)


def log_steps(kind: BaseDistribution) -> tuple[float, ...]:
    """The ticks within a decade of a logarithmic axis: the fewer, the more decades there are."""
    decades = math.log10(kind.high / kind.low)
    return (1.0, 2.0, 5.0) if decades < 1.3 else (1.0, 3.0) if decades < 2.6 else (1.0,)


def _number_axis(axes: Axes, kind: BaseDistribution) -> None:
    if kind.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=log_steps(kind)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        edge = (kind.high / kind.low) ** 0.05
        axes.set_xlim(kind.low / edge, kind.high * edge)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=isinstance(kind, IntDistribution)))
        edge = 0.05 * (kind.high - kind.low) or 1
        axes.set_xlim(kind.low - edge, kind.high + edge)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(float(f"{value:.6g}"))))
    axes.tick_params(axis="x", labelsize=8)


def parallel_coordinates(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> Figure | None:
    """A line a trial through its settings to its score, which is better further up.

    Lines through one choice are spread by their score, so that equal settings do not hide each other. A line
    has a gap at a setting that its trial has no use for.
    """
    scored = scored_trials(trials)
    names = drawn_settings(searched, scored)
    if not names:
        return None
    places = score_places(scored, metric)
    order = sorted(scored, key=lambda trial: places[trial.id])
    figure, axes = new_figure("Parallel coordinates", width=max(6.4, 1.15 * (len(names) + 1)), height=3.9)
    axes.grid(visible=False)
    axes.set_axis_off()
    lines = np.full((len(order), len(names) + 1), np.nan)
    for column, name in enumerate(names):
        kind = searched.distributions[name]
        for row, trial in enumerate(order):
            if name in searched.values[trial.id]:
                lines[row, column] = height_of(kind, searched.values[trial.id][name], places[trial.id])
        _pole(axes, column, setting_name(name), ticks_of(kind))
    scores = np.array([trial.score for trial in order], dtype=float)
    low, high = score_range(scores, metric)
    lines[:, -1] = np.clip((scores - low) / (high - low), 0, 1)
    ticks = [(place, tick_text(low + (high - low) * place, metric)) for place in (0, 0.25, 0.5, 0.75, 1)]
    if not higher_is_better(metric):
        lines[:, -1] = 1 - lines[:, -1]
        ticks = [(1 - place, text) for place, text in ticks]
    _pole(axes, len(names), METRIC_NAMES[metric], ticks)
    for row, trial in enumerate(order):
        won = trial.id == winner
        # By place, not by score: most scores of a good sweep lie close together.
        colour = WINNER if won else colormaps["viridis"](0.92 * (1 - places[trial.id]))
        thin: dict[str, Any] = {"lw": 1.1, "alpha": 0.8 if len(order) < 40 else 0.55, "zorder": 2}
        style: dict[str, Any] = {"lw": 2.8, "zorder": 5} if won else thin
        axes.plot(lines[row], color=colour, marker="o", ms=5 if won else 2.5, **style)
    axes.set_xlim(-0.45, len(names) + 0.3)
    axes.set_ylim(-0.05, 1.05)
    if any(trial.id == winner for trial in order):
        add_legend(axes, [], winner)
    return figure


def score_places(scored: Sequence[TrialRecord], metric: Metric) -> dict[str, float]:
    """Trial → its place among these, evenly from the worst to the best within (0, 1)."""
    higher = higher_is_better(metric)
    order = sorted(scored, key=lambda trial: (trial.score or 0.0) if higher else -(trial.score or 0.0))
    return {trial.id: (number + 0.5) / len(order) for number, trial in enumerate(order)}


def height_of(kind: BaseDistribution, value: Any, spread: float) -> float:
    """Where a value stands on its pole, in [0, 1]."""
    if isinstance(kind, CategoricalDistribution):
        return float((kind.choices.index(value) + 0.5 + 0.5 * (spread - 0.5)) / len(kind.choices))
    if kind.high == kind.low:
        return 0.5
    if kind.log:
        return math.log(value / kind.low) / math.log(kind.high / kind.low)
    return float((value - kind.low) / (kind.high - kind.low))


def ticks_of(kind: BaseDistribution) -> list[tuple[float, str]]:
    """A pole's ticks: (height in [0, 1], text)."""
    if isinstance(kind, CategoricalDistribution):
        skip = math.ceil(len(kind.choices) / 12)
        return [(height_of(kind, c, 0.5), short(show(c), 14)) for c in kind.choices[::skip]]
    values = np.linspace(kind.low, kind.high, 3)
    if kind.log:
        values = np.geomspace(kind.low, kind.high, 3)
    if isinstance(kind, IntDistribution):
        values = np.unique(values.round())
    return [(height_of(kind, value, 0.5), show(float(f"{value:.2g}"))) for value in values.tolist()]


def _pole(axes: Axes, x: float, name: str, ticks: Iterable[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color="#495057", lw=1, zorder=3)
    axes.text(x, 1.07, name, ha="center", va="bottom", fontsize=9, weight="bold", parse_math=False)
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.88, "pad": 0.6}
    for place, text in ticks:
        axes.plot([x - 0.02, x], [place, place], color="#495057", lw=1, zorder=3)
        axes.text(
            x - 0.04,
            place,
            text,
            ha="right",
            va="center",
            fontsize=8,
            bbox=behind,
            zorder=6,
            parse_math=False,
        )
