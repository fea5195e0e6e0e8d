"""What the pictures for a browser have in common: what a mark tells of its trial, marks, layout, the axis of scores.

Plotly reads a little HTML in any text, so that all texts pass through `plain` or `trial_text`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.record.words import METRIC_NAMES, parameters_text, score_text, setting_text
from lorasweep.tuning.report.plots.style import COLOURS, WINNER, WORDS, score_range, setting_name, short
from lorasweep.tuning.report.searched import Searched, is_number

SYMBOLS = {"completed": "circle", "stopped": "x-thin-open", "failed": "x", "running": "triangle-right"}
GREY = "#495057"


def plain(text: str, length: int = 60) -> str:
    """A text that Plotly shows as it is: on one line, cut in the middle, its markup escaped."""
    return html.escape(short(text, length), quote=False)


def trial_text(trial: TrialRecord, searched: Searched, metric: Metric) -> str:
    """What is told of a trial: its state, score, size, and what it drew."""
    lines = [
        f"<b>{plain(trial.id)}</b> {WORDS[trial.state]}"
        + (f" at rung {trial.reached}" if trial.reached else "")
    ]
    if is_number(trial.score):
        lines.append(f"{METRIC_NAMES[metric]} {score_text(trial.score, metric)}")
    values = searched.values.get(trial.id, {})
    lines += [f"{plain(setting_name(name))} {plain(setting_text(value))}" for name, value in values.items()]
    if trial.trainable_parameters:
        lines.append(f"{parameters_text(trial.trainable_parameters)} parameters")
    if trial.error:
        lines.append(plain(trial.error, 90))
    return "<br>".join(lines)


def look_of(trial: TrialRecord, winner: str | None) -> tuple[str, str, str]:
    """How a trial is drawn: the legend's word, colour and symbol."""
    if trial.id == winner:
        return f"winner {plain(trial.id)}", WINNER, "star"
    return WORDS[trial.state], COLOURS[trial.state], SYMBOLS[trial.state]


def add_dots(
    figure: go.Figure,
    points: Sequence[tuple[TrialRecord, float, float | None]],
    searched: Searched,
    metric: Metric,
    winner: str | None,
    shown: set[str] | None = None,
    bubbles: bool = False,
    row: int | None = None,
    column: int | None = None,
) -> None:
    """A mark for each (trial, x, y): one trace for each state, so that the legend can hide it.

    Args:
        shown: the legend's words so far, where several panels share it.
        row: of the panel, from 1, where there are several; `column` likewise.
    """
    shown = set() if shown is None else shown
    most = max((trial.trainable_parameters or 0 for trial, _, _ in points), default=0) or 1
    for state in (*WORDS, "winner"):
        own = [p for p in points if ("winner" if p[0].id == winner else p[0].state) == state]
        if not own:
            continue
        name, colour, symbol = look_of(own[0][0], winner)
        marker: dict[str, Any] = {"color": colour, "symbol": symbol, "size": 14 if state == "winner" else 8}
        if bubbles:
            areas = [(trial.trainable_parameters or 0) / most for trial, _, _ in own]
            sizes = [max(6.0, 34 * math.sqrt(area)) for area in areas]
            marker |= {"symbol": "circle", "size": sizes, "opacity": 0.85 if state == "winner" else 0.55}
        marker["line"] = (
            {"width": 2} if state == "stopped" and not bubbles else {"width": 1, "color": "white"}
        )
        figure.add_scatter(
            x=[x for _, x, _ in own],
            y=[y for _, _, y in own],
            mode="markers",
            marker=marker,
            name=name,
            legendgroup=name,
            showlegend=name not in shown,
            hoverinfo="text",
            hovertext=[trial_text(trial, searched, metric) for trial, _, _ in own],
            row=row,
            col=column,
        )
        shown.add(name)


def lay_out(figure: go.Figure, title: str, height: int = 420) -> None:
    """Title, letters, margins and lines, alike in all figures; the width is the window's."""
    figure.update_layout(
        template="plotly_white",
        title={
            "text": f"<b>{title}</b>",
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "font": {"size": 16},
        },
        height=height,
        font={"size": 13, "color": "#212529", "family": "system-ui, 'Segoe UI', Roboto, Arial, sans-serif"},
        margin={"l": 70, "r": 20, "t": 80, "b": 60},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"},
        hoverlabel={"align": "left", "bgcolor": "white"},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, zeroline=False, showline=True, linecolor=GREY, ticks="outside")
    figure.update_yaxes(automargin=True, zeroline=False, showline=True, linecolor=GREY, ticks="outside")


def set_score_axis(figure: go.Figure, metric: Metric, values: Sequence[float], title: bool = True) -> None:
    """Per cent, or nats; a loss that has run away is above the axis, where zooming out finds it."""
    figure.update_yaxes(tickformat="" if metric == "loss" else ".4~p")
    if title:
        unit = " (nats)" if metric == "loss" else ""
        figure.update_yaxes(title=f"validation {METRIC_NAMES[metric]}{unit}")
    low, high = score_range(values, metric)
    if high < max(values):
        edge = 0.08 * (high - low)
        figure.update_yaxes(range=[low - edge, high + edge])
        about = {"x": 1, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
        figure.add_annotation(text="some are higher ↑", showarrow=False, font={"size": 12}, **about)
