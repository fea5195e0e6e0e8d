"""Plots of trials: their learning curves, the search's history, and what a larger adapter gains."""

from __future__ import annotations

import itertools
import math

import plotly.graph_objects as go

from lorasweep.search_spaces.domains import show
from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import score_text
from lorasweep.tuning.report.plots.data import PlotData, is_number
from lorasweep.tuning.report.plots.style import (
    GREY,
    add_dots,
    lay_out,
    look_of,
    new_figure,
    score_range,
    set_score_axis,
    trial_text,
)


def learning_curves(data: PlotData) -> go.Figure | None:
    """Each trial's evaluations over its epochs; the mark at a curve's end says how the trial ended.

    Optuna's `plot_intermediate_values` knows neither epochs nor how a trial ended.
    """
    figure = new_figure()
    drawn: list[float] = []
    ends: list[tuple[TrialRecord, float, float | None]] = []
    for trial in sorted(data.trials, key=lambda trial: trial.id == data.winner):
        values = [
            (
                e.rung if e.epoch is None else e.epoch,
                e.score if e.by(data.metric) is None else e.by(data.metric),
            )
            for e in trial.evaluations
        ]
        points = [(float(x), float(y)) for x, y in values if is_number(x) and is_number(y)]
        if not points:
            continue
        drawn += [y for _, y in points]
        ends.append((trial, *points[-1]))
        name, colour, _ = look_of(trial, data.winner)
        won, about = trial.id == data.winner, trial_text(trial, data)
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines+markers",
            line={"color": colour, "width": 3.5 if won else 1.5},
            marker={"size": 4},
            opacity=1 if won else 0.8,
            name=name,
            legendgroup=name,
            showlegend=False,
            hoverinfo="text",
            hovertext=[f"epoch {x:.3g}: {score_text(y, data.metric)}<br>{about}" for x, y in points],
        )
    if not drawn:
        return None
    add_dots(figure, data, ends)
    lay_out(figure)
    epochs = any(evaluation.epoch is not None for trial in data.trials for evaluation in trial.evaluations)
    figure.update_xaxes(title="epoch" if epochs else "rung", rangemode="tozero")
    set_score_axis(figure, data.metric, drawn)
    return figure


def history(data: PlotData) -> go.Figure | None:
    """Each trial's score by its number, and the best so far; failed trials without one stand below them.

    Optuna's `plot_optimization_history` does not show how a trial ended.
    """
    if not data.scored:
        return None
    figure = new_figure()
    figure.add_scatter(
        x=[trial.number for trial in data.scored],
        y=list(itertools.accumulate(data.scores, max if higher_is_better(data.metric) else min)),
        mode="lines",
        line={"shape": "hv", "color": GREY, "width": 1.5},
        name="best so far",
        hoverinfo="skip",
    )
    low, high = score_range(data.scores, data.metric)
    failed = [trial for trial in data.trials if trial.state == "failed" and not is_number(trial.score)]
    bottom = low - 0.12 * (high - low)
    scores = [(trial, trial.number, trial.score) for trial in data.scored]
    add_dots(figure, data, scores + [(trial, trial.number, bottom) for trial in failed])
    lay_out(figure)
    figure.update_xaxes(title="trial", tickformat="d")
    set_score_axis(figure, data.metric, [*data.scores, *[bottom] * bool(failed)])
    return figure


def adapter_sizes(data: PlotData) -> go.Figure | None:
    """Score against rank; a circle's area is what the trial trains. Full fine-tuning stands at the right."""
    points: list[tuple[TrialRecord, float, float | None]] = []
    ranks: set[float] = set()
    for trial in data.scored:
        rank = trial.hyperparameters.rank
        if trial.hyperparameters.method == "full":
            points.append((trial, math.inf, trial.score))
        elif is_number(rank) and rank:
            ranks.add(float(rank))
            points.append((trial, math.log2(rank), trial.score))
    if not points:
        return None
    ticks = [(math.log2(rank), show(rank)) for rank in sorted(ranks)]
    full = math.log2(max(ranks)) + 1 if ranks else 0.0
    if any(x == math.inf for _, x, _ in points):
        points = [(trial, min(x, full), y) for trial, x, y in points]
        ticks.append((full, "full"))
    figure = new_figure()
    add_dots(figure, data, points, bubbles=True)
    lay_out(figure)
    figure.update_xaxes(
        title="rank",
        tickvals=[place for place, _ in ticks],
        ticktext=[text for _, text in ticks],
        range=[ticks[0][0] - 0.5, ticks[-1][0] + 0.5],
    )
    set_score_axis(figure, data.metric, [trial.score or 0.0 for trial, _, _ in points])
    return figure
