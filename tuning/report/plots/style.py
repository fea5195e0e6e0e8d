"""What all plots share: colours, texts that Plotly shows as they are, layout, and the axis of scores.

Plotly reads a little HTML in any text, so every text of a user's passes through `plain`.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.words import METRIC_NAMES, SHORT_NAMES, one_line

WINNER, COMPLETED = "#e8590c", "#2b6cb0"
INK, GREY, LIGHT = "#212529", "#495057", "#dee2e6"


def short(text: str, length: int) -> str:
    """A text on one line without control characters, its middle left out where it is too long."""
    line = one_line(text)
    if len(line) <= length:
        return line
    tail = (length - 1) // 2
    return f"{line[: length - 1 - tail]}…{line[len(line) - tail :]}"


def plain(text: str, length: int = 60) -> str:
    """A text that Plotly shows as it is: on one line, cut in the middle, its markup escaped."""
    return html.escape(short(text, length), quote=False)


def setting_name(name: str) -> str:
    """A setting as plots name it, for instance "lr ratio" for `_lr_ratio`."""
    return plain(SHORT_NAMES.get(name, name).lstrip("_").replace("_", " "), 18)


def distinct(texts: Sequence[str]) -> list[str]:
    """The texts with blanks added to those that repeat an earlier one: Plotly and Optuna tell them apart by text."""
    return [text + " " * list(texts[:number]).count(text) for number, text in enumerate(texts)]


def lay_out(figure: go.Figure, height: int = 420) -> None:
    """Fonts, margins, legend and axis lines, alike in all plots; the page sets the width."""
    figure.update_layout(
        template="plotly_white",
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
    figure.update_xaxes(**lines)
    figure.update_yaxes(**lines)


def score_range(values: Sequence[float] | np.ndarray, metric: Metric) -> tuple[float, float]:
    """Lowest and highest score to draw; a loss beyond three times the median would press the others flat."""
    low, high = float(np.min(values)), float(np.max(values))
    if metric == "loss":
        most = 3 * float(np.median(values))
        high = max((float(value) for value in values if value <= most), default=high)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def set_score_axis(figure: go.Figure, metric: Metric, values: Sequence[float]) -> None:
    """Title and unit of the y axis; says so where a diverged loss lies above it (zoom out to see it)."""
    unit = " (nats)" if metric == "loss" else ""
    figure.update_yaxes(tickformat="" if metric == "loss" else ".4~p")
    figure.update_yaxes(title=f"validation {METRIC_NAMES[metric]}{unit}")
    low, high = score_range(values, metric)
    if high < max(values):
        edge = 0.08 * (high - low)
        figure.update_yaxes(range=[low - edge, high + edge])
        place = {"x": 1, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
        figure.add_annotation(text="some are higher ↑", showarrow=False, font={"size": 12}, **place)
