"""Pictures of a sweep's trials: how they learned, how the search went on, what a larger adapter brings.

Each function gives one figure, or None where there is nothing to draw. Scores are validation scores by the
sweep's metric; a score that is missing or not finite is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lorasweep.search_spaces.domains import show
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.record.words import METRIC_NAMES, parameters_text
from lorasweep.tuning.report.plots.style import (
    COLOURS,
    FAILED,
    MARKERS,
    WINNER,
    add_legend,
    draw_dots,
    new_figure,
    score_axis,
)
from lorasweep.tuning.report.searched import is_number, scored_trials


def learning_curves(
    trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> Figure | None:
    """Each trial's evaluations over its epochs; the mark at a curve's end says how the trial ended.

    Args:
        winner: id of the trial to bring out.
    """
    figure, axes = new_figure(f"Learning curves: validation {METRIC_NAMES[metric]}")
    drawn: list[float] = []
    for trial in sorted(trials, key=lambda trial: trial.id == winner):
        values = [
            (e.rung if e.epoch is None else e.epoch, e.score if e.by(metric) is None else e.by(metric))
            for e in trial.evaluations
        ]
        points = [(x, y) for x, y in values if is_number(x) and is_number(y)]
        if not points:
            continue
        xs, ys = zip(*points, strict=True)
        drawn += ys
        won = trial.id == winner
        colour = WINNER if won else COLOURS[trial.state]
        axes.plot(
            xs, ys, color=colour, lw=2.6 if won else 1.1, alpha=1 if won else 0.75, zorder=3 if won else 2
        )
        axes.plot(xs[-1:], ys[-1:], MARKERS[trial.state], color=colour, ms=7 if won else 5, zorder=4)
    if not drawn:
        return None
    epochs = any(evaluation.epoch is not None for trial in trials for evaluation in trial.evaluations)
    axes.set_xlabel("epoch" if epochs else "rung")
    score_axis(axes, metric, drawn)
    add_legend(axes, [trial for trial in trials if trial.evaluations], winner)
    return figure


def history(trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None) -> Figure | None:
    """Each trial's score by its number, and the best so far; failed trials without one stand at the bottom."""
    scored = sorted(scored_trials(trials), key=lambda trial: trial.number)
    if not scored:
        return None
    figure, axes = new_figure(f"Optimisation history: {METRIC_NAMES[metric]} of each trial")
    scores = np.array([trial.score for trial in scored], dtype=float)
    best = np.maximum.accumulate(scores) if higher_is_better(metric) else np.minimum.accumulate(scores)
    numbers = [trial.number for trial in scored]
    axes.step(numbers, best, where="post", color="#495057", lw=1.4, zorder=1)
    draw_dots(axes, numbers, scored, winner)
    for trial in trials:
        if trial.state == "failed" and not is_number(trial.score):
            where = axes.get_xaxis_transform()
            axes.plot(
                trial.number, 0.02, MARKERS["failed"], color=FAILED, ms=6, transform=where, clip_on=False
            )
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    score_axis(axes, metric, scores.tolist())
    add_legend(axes, trials, winner, [Line2D([], [], color="#495057", lw=1.4, label="best so far")], "stars")
    return figure


def adapter_sizes(trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None) -> Figure | None:
    """Score against rank; a bubble's area is what the trial trains. Full fine-tuning stands at the right."""
    kept: list[tuple[TrialRecord, float | None]] = []
    for trial in scored_trials(trials):
        if trial.hyperparameters.method == "full":
            kept.append((trial, None))
        else:
            kept.append((trial, float(trial.hyperparameters.rank)))
    if not kept:
        return None
    figure, axes = new_figure(f"Rank, {METRIC_NAMES[metric]} and size (area: trainable parameters)")
    ranks = sorted({rank for _, rank in kept if rank is not None})
    full = math.log2(ranks[-1]) + 1 if ranks else 0.0
    most = max((trial.trainable_parameters or 0 for trial, _ in kept), default=0) or 1
    for trial, rank in sorted(kept, key=lambda pair: -(pair[0].trainable_parameters or 0)):
        won = trial.id == winner
        axes.scatter(
            math.log2(rank) if rank else full,
            trial.score or 0.0,
            s=_area(trial.trainable_parameters, most),
            color=WINNER if won else COLOURS[trial.state],
            alpha=0.85 if won else 0.55,
            edgecolor="white",
            linewidth=0.8,
            zorder=4 if won else 2,
        )
    shown = ranks if len(ranks) <= 10 else [r for r in ranks if math.log2(r).is_integer()] or ranks[::5]
    places = [math.log2(rank) for rank in shown] + [full] * any(rank is None for _, rank in kept)
    texts = [show(rank) for rank in shown] + ["full"]
    axes.set_xticks(places, labels=texts[: len(places)])
    axes.set_xlim(min(places) - 0.5, max(places) + 0.5)
    axes.set_xlabel("rank")
    axes.margins(y=0.12)
    score_axis(axes, metric, [trial.score or 0.0 for trial, _ in kept])
    counts = sorted({trial.trainable_parameters for trial, _ in kept if trial.trainable_parameters})
    ends = counts[-1:] if not counts or counts[-1] < 1.5 * counts[0] else [counts[0], counts[-1]]
    style: dict[str, Any] = {"ls": "", "marker": "o", "color": "#ced4da"}
    sizes = [
        Line2D([], [], ms=math.sqrt(_area(count, most)), label=parameters_text(count), **style)
        for count in ends
    ]
    add_legend(axes, [trial for trial, _ in kept], winner, sizes, "bubbles")
    return figure


def _area(count: int | None, most: int) -> float:
    return max(14.0, 480.0 * (count or 0) / most)
