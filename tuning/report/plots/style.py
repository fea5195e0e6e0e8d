"""What all plots share: layout, the axis of scores, and trials as marks with a hover text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lorasweep.training.metrics import Metric, metric_words, unit_of
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import parameters_text, score_text, setting_text
from lorasweep.tuning.report.plots.data import PlotData, is_number, plain

WINNER, COMPLETED = "#e8590c", "#2b6cb0"
INK, GREY, LIGHT = "#212529", "#495057", "#dee2e6"
# Plotly's own templates are 7 KB in each figure, and take longer to apply than a figure to draw.
TEMPLATE = {"layout": {"paper_bgcolor": "white", "plot_bgcolor": "white"}}
# State → its word in legends, colour and symbol.
LOOKS = {
    "completed": ("completed", COMPLETED, "circle"),
    "stopped": ("stopped early", "#727b84", "x-thin-open"),
    "failed": ("failed", "#343a40", "x"),
    "running": ("running", "#5c940d", "triangle-right"),
    "interrupted": ("interrupted", "#5c940d", "triangle-right"),
}


def new_figure() -> go.Figure:
    """An empty figure, for `lay_out` once its traces are in it."""
    return go.Figure(layout={"template": TEMPLATE})


def lay_out(figure: go.Figure, height: int = 420) -> None:
    """Fonts, margins, legend and axis lines, alike in all plots; the page sets the width."""
    figure.update_layout(
        template=TEMPLATE,
        # The page has the title.
        title=None,
        height=height,
        font={"size": 13, "color": INK, "family": "system-ui, 'Segoe UI', Roboto, Arial, sans-serif"},
        margin={"l": 70, "r": 20, "t": 48, "b": 60},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"},
        hoverlabel={"align": "left", "bgcolor": "white"},
        hovermode="closest",
    )
    lines = {"automargin": True, "zeroline": False, "showline": True, "linecolor": GREY, "ticks": "outside"}
    lines |= {"gridcolor": "#ebedf0", "title": {"standoff": 8}}
    figure.update_layout(xaxis=lines, yaxis=lines)
    figure.update_xaxes(**lines)
    figure.update_yaxes(**lines)


def score_range(values: Sequence[float] | np.ndarray, metric: Metric) -> tuple[float, float]:
    """Lowest and highest score to draw; a loss beyond three times the median would press the others flat."""
    low, high = float(np.min(values)), float(np.max(values))
    if unit_of(metric) == "nats":
        most = 3 * float(np.median(values))
        high = max((float(value) for value in values if value <= most), default=high)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def set_score_axis(figure: go.Figure, metric: Metric, values: Sequence[float]) -> None:
    """Title and unit of the y axis; says so where a diverged loss lies above it (zoom out to see it)."""
    unit = unit_of(metric)
    figure.update_yaxes(tickformat=".4~p" if unit == "share" else "")
    figure.update_yaxes(title=f"validation {metric_words(metric)}{' (nats)' if unit == 'nats' else ''}")
    low, high = score_range(values, metric)
    if high < max(values):
        edge = 0.08 * (high - low)
        figure.update_yaxes(range=[low - edge, high + edge])
        place = {"x": 1, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
        figure.add_annotation(text="some are higher ↑", showarrow=False, font={"size": 12}, **place)


def look_of(trial: TrialRecord, winner: str | None) -> tuple[str, str, str]:
    """How a trial is drawn: its word in the legend, colour and symbol."""
    return (f"winner {plain(trial.id)}", WINNER, "star") if trial.id == winner else LOOKS[trial.state]


def trial_text(trial: TrialRecord, data: PlotData) -> str:
    """Hover text of a trial: state, score, the settings it drew, size and error."""
    rung = f" at rung {trial.reached}" if trial.reached else ""
    lines = [f"<b>{plain(trial.id)}</b> {LOOKS[trial.state][0]}{rung}"]
    if is_number(trial.score):
        lines.append(f"{metric_words(data.metric)} {score_text(trial.score, data.metric)}")
    lines += [f"{name} {setting_text(value)}" for name, value in data.values[trial.id].items()]
    if trial.trainable_parameters:
        lines.append(f"{parameters_text(trial.trainable_parameters)} parameters")
    if trial.error:
        lines.append(plain(trial.error, 90))
    return "<br>".join(lines)


def add_dots(
    figure: go.Figure,
    data: PlotData,
    points: Sequence[tuple[TrialRecord, float, float | None]],
    bubbles: bool = False,
    panel: int = 1,
) -> None:
    """Add a mark for each (trial, x, y): one trace a state, so that a click in the legend hides it.

    Args:
        bubbles: draw circles whose area is the number of trainable parameters.
        panel: number of its axes, from 1; a state stands in the legend once.
    """
    shown = {trace.name for trace in figure.data if trace.showlegend}
    most = max((trial.trainable_parameters or 0 for trial, _, _ in points), default=0) or 1
    by_look: dict[tuple[str, str, str], list[tuple[TrialRecord, float, float | None]]] = {}
    # The winner comes last and lies on top.
    for point in sorted(
        points, key=lambda point: (point[0].id == data.winner, list(LOOKS).index(point[0].state))
    ):
        by_look.setdefault(look_of(point[0], data.winner), []).append(point)
    for (name, colour, symbol), own in by_look.items():
        won, crossed = colour == WINNER, symbol == "x-thin-open"
        line = {"width": 2} if crossed else {"width": 1, "color": "white"}
        marker: dict[str, Any] = {"color": colour, "symbol": symbol, "size": 14 if won else 8, "line": line}
        if bubbles:
            sizes = [34 * math.sqrt((trial.trainable_parameters or 0) / most) for trial, _, _ in own]
            marker |= {"symbol": "circle", "size": [max(6.0, size) for size in sizes]}
            marker |= {"opacity": 0.85 if won else 0.55, "line": {"width": 1, "color": "white"}}
        figure.add_scatter(
            x=[x for _, x, _ in own],
            y=[y for _, _, y in own],
            mode="markers",
            marker=marker,
            name=name,
            legendgroup=name,
            showlegend=name not in shown,
            hoverinfo="text",
            hovertext=[trial_text(trial, data) for trial, _, _ in own],
            xaxis=f"x{panel}" if panel > 1 else "x",
            yaxis=f"y{panel}" if panel > 1 else "y",
        )
