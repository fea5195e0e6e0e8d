"""Pictures of a sweep's trials and its winner for a browser, where a mark tells its trial when one points at it.

They show what `plot_trials` and `plot_winner` show, from the same records. Optuna's own interactive figures leave
out every trial that ASHA stopped; here those stand as what they are. Each function gives one figure, or None where
there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from lorasweep.search_spaces.domains import show
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.record.words import METRIC_NAMES, score_text
from lorasweep.tuning.report.interactive.style import (
    GREY,
    add_dots,
    lay_out,
    look_of,
    plain,
    set_score_axis,
    trial_text,
)
from lorasweep.tuning.report.plots.style import score_range
from lorasweep.tuning.report.searched import Searched, is_number, scored_trials

# Beyond these a page of cells would outgrow Plotly's own code; confusion.csv has them all.
MOST_CLASSES = 200


def learning_curves(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> go.Figure | None:
    """Each trial's evaluations over its epochs; the mark at a curve's end says how the trial ended."""
    figure = go.Figure()
    drawn: list[float] = []
    looks: dict[str, tuple[str, str]] = {}
    for trial in sorted(trials, key=lambda trial: trial.id == winner):
        values = [
            (e.rung if e.epoch is None else e.epoch, e.score if e.by(metric) is None else e.by(metric))
            for e in trial.evaluations
        ]
        points = [(float(x), float(y)) for x, y in values if is_number(x) and is_number(y)]
        if not points:
            continue
        drawn += [y for _, y in points]
        name, colour, symbol = look_of(trial, winner)
        won, about = trial.id == winner, trial_text(trial, searched, metric)
        last = [number == len(points) - 1 for number in range(len(points))]
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines+markers",
            line={"color": colour, "width": 3.5 if won else 1.5},
            opacity=1 if won else 0.8,
            marker={
                "symbol": [symbol if end and not won else "circle" for end in last],
                "size": [(11 if won else 8) if end else 4 for end in last],
                "color": colour,
                "opacity": 1,
                "line": {"width": [2 if end and trial.state == "stopped" else 0 for end in last]},
            },
            name=name,
            legendgroup=name,
            showlegend=False,
            hoverinfo="text",
            hovertext=[f"epoch {x:.3g}: {score_text(y, metric)}<br>{about}" for x, y in points],
        )
        looks[name] = colour, "circle" if won else symbol
    if not drawn:
        return None
    for name, (colour, symbol) in looks.items():
        marker = {"symbol": symbol, "size": 8, "color": colour, "line": {"width": 2 * ("open" in symbol)}}
        line = {"color": colour, "width": 2}
        figure.add_scatter(
            x=[None], y=[None], mode="lines+markers", line=line, marker=marker, name=name, legendgroup=name
        )
    lay_out(figure, f"Learning curves: validation {METRIC_NAMES[metric]}")
    epochs = any(evaluation.epoch is not None for trial in trials for evaluation in trial.evaluations)
    figure.update_xaxes(title="epoch" if epochs else "rung", rangemode="tozero")
    set_score_axis(figure, metric, drawn)
    return figure


def history(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> go.Figure | None:
    """Each trial's score by its number, and the best so far; failed trials without one stand below them."""
    scored = sorted(scored_trials(trials), key=lambda trial: trial.number)
    if not scored:
        return None
    scores = np.array([trial.score for trial in scored], dtype=float)
    best = np.maximum.accumulate(scores) if higher_is_better(metric) else np.minimum.accumulate(scores)
    figure = go.Figure()
    figure.add_scatter(
        x=[trial.number for trial in scored],
        y=best.tolist(),
        mode="lines",
        line={"shape": "hv", "color": GREY, "width": 1.5},
        name="best so far",
        hoverinfo="skip",
    )
    add_dots(figure, [(trial, trial.number, trial.score) for trial in scored], searched, metric, winner)
    low, high = score_range(scores, metric)
    failed = [trial for trial in trials if trial.state == "failed" and not is_number(trial.score)]
    bottom = low - 0.12 * (high - low)
    add_dots(figure, [(trial, trial.number, bottom) for trial in failed], searched, metric, None)
    lay_out(figure, f"Optimisation history: {METRIC_NAMES[metric]} of each trial")
    figure.update_xaxes(title="trial", tickformat="d")
    set_score_axis(figure, metric, [*scores.tolist(), *[bottom] * bool(failed)])
    return figure


def adapter_sizes(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> go.Figure | None:
    """Score against rank; a bubble's area is what the trial trains. Full fine-tuning stands at the right."""
    points: list[tuple[TrialRecord, float, float | None]] = []
    ranks: set[float] = set()
    for trial in scored_trials(trials):
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
    figure = go.Figure()
    add_dots(figure, points, searched, metric, winner, bubbles=True)
    lay_out(figure, f"Rank, {METRIC_NAMES[metric]} and size (area: trainable parameters)")
    figure.update_xaxes(
        title="rank",
        tickvals=[place for place, _ in ticks],
        ticktext=[text for _, text in ticks],
        range=[ticks[0][0] - 0.5, ticks[-1][0] + 0.5],
    )
    set_score_axis(figure, metric, [trial.score or 0.0 for trial, _, _ in points])
    return figure


def confusion(matrix: np.ndarray, label_names: Sequence[str]) -> go.Figure | None:
    """What the winner takes for what, as shares of each true class.

    Args:
        matrix: int, shape (classes, classes): rows by true class and predicted class.

    Returns:
        None without rows, or with more than `MOST_CLASSES` classes.
    """
    count, totals = len(label_names), matrix.sum(axis=1, keepdims=True)
    if not totals.sum() or count > MOST_CLASSES:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(totals > 0, matrix / totals, np.nan)
    names = [plain(f"{name}", 32) for name in label_names]
    told = [
        [
            f"<b>{names[row]}</b> taken for <b>{names[column]}</b><br>{rows} of {int(totals[row, 0])} rows"
            if rows
            else ""
            for column, rows in enumerate(line)
        ]
        for row, line in enumerate(matrix.tolist())
    ]
    marks = [0, 0.05, 0.2, 0.4, 0.6, 0.8, 1]
    figure = go.Figure(
        go.Heatmap(
            # Few of a class's rows go to any single wrong one: the root lets them be seen beside the diagonal.
            z=[
                [None if math.isnan(share) else math.sqrt(share) for share in line]
                for line in shares.tolist()
            ],
            zmin=0,
            zmax=1,
            colorscale="Blues",
            xgap=1,
            ygap=1,
            hoverinfo="text",
            hovertext=told,
            colorbar={
                "tickvals": [math.sqrt(mark) for mark in marks],
                "ticktext": [f"{mark:.0%}" for mark in marks],
                "thickness": 14,
                "len": 0.7,
            },
        )
    )
    side = min(1100, max(380, 21 * count + 60))
    lay_out(figure, "Confusion on the test split (share of the true class)", height=side + 180)
    places, texts = list(range(count)), [plain(name, 24) for name in label_names]
    size = 12 if count <= 24 else max(7, min(11, round(0.6 * side / count)))
    figure.update_xaxes(
        title="predicted", tickvals=places, ticktext=texts, tickangle=-45, tickfont_size=size, showgrid=False
    )
    figure.update_yaxes(
        title="true",
        tickvals=places,
        ticktext=texts,
        tickfont_size=size,
        showgrid=False,
        autorange="reversed",
    )
    figure.update_layout(width=side + 320, plot_bgcolor="#dee2e6")
    return figure
