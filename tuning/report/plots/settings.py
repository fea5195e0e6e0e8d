"""Plots of what was searched: which settings mattered, the score by each of them, and parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from lorasweep.training.metrics import metric_words
from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.words import score_text
from lorasweep.tuning.report.plots.axes import axis_of, axis_place, height, height_ticks, ruler, tick_texts
from lorasweep.tuning.report.plots.data import PlotData
from lorasweep.tuning.report.plots.style import (
    COMPLETED,
    WINNER,
    add_dots,
    lay_out,
    new_figure,
    score_range,
    set_score_axis,
)

# Height at which a line of the parallel coordinates passes a setting that its trial does not use.
UNUSED = -0.14
# The axes go on beyond their ends, to a tick without a name: a marked range stops at the middle between two ticks,
# and at an axis's last tick it would stop just short of the trials there.
EDGE = 0.04
# Pixels of a panel of `slices`, and of one axis of the parallel coordinates, in which their texts can be read.
PANEL_WIDTH, PANEL_HEIGHT = 250, 260
AXIS_WIDTH = 84


def importances(data: PlotData) -> go.Figure | None:
    """A bar for each searched setting, the largest on top; see `PlotData.importances`."""
    shares = dict(reversed(data.importances.items()))
    if not shares:
        return None
    figure = new_figure()
    figure.add_bar(
        x=list(shares.values()),
        y=list(shares),
        orientation="h",
        marker_color=COMPLETED,
        texttemplate="%{x:.0%}",
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    lay_out(figure, height=104 + 34 * len(shares))
    figure.update_layout(margin={"t": 34, "r": 50})
    figure.update_yaxes(showgrid=False)
    count = len(data.scored)
    figure.update_xaxes(title=f"importance ({count} trials)", tickformat=".0%", rangemode="tozero", nticks=6)
    return figure


def slices(data: PlotData) -> go.Figure | None:
    """A panel for each searched setting with the score of each trial; the page sets the panels in columns.

    Optuna's `plot_slice` puts all panels in one row, and shows neither the winner nor how a trial ended.
    """
    names = data.drawn
    if not names:
        return None
    figure = new_figure()
    for number, name in enumerate(names, start=1):
        kind = data.kinds[name]
        values = [(t, data.values[t.id][name], t.score) for t in data.scored if name in data.values[t.id]]
        points = [(t, axis_place(kind, value, t.number), score) for t, value, score in values]
        add_dots(figure, data, points, panel=number)
    lay_out(figure)
    set_score_axis(figure, data.metric, data.scores)
    lines, scores = figure.layout.xaxis.to_plotly_json(), figure.layout.yaxis.to_plotly_json()
    for number, name in enumerate(names, start=1):
        title = {"text": f"<b>{name}</b>", "standoff": 8}
        figure.layout[f"xaxis{number}"] = lines | axis_of(data.kinds[name]) | {"title": title}
        figure.layout[f"yaxis{number}"] = scores | ({"matches": "y"} if number > 1 else {})
    # Three panels in a row, but four as two by two.
    columns = 2 if len(names) == 4 else min(3, len(names))
    rows = -(-len(names) // columns)
    figure.update_layout(
        height=90 + PANEL_HEIGHT * rows,
        grid={"rows": rows, "columns": columns, "pattern": "independent", "xgap": 0.24, "ygap": 0.42},
        margin_t=36,
        meta={"panels": len(names), "panel_width": PANEL_WIDTH, "panel_height": PANEL_HEIGHT},
    )
    return figure


def score_places(data: PlotData) -> dict[str, float]:
    """Trial → its place in (0, 1) among those with a score, evenly spaced, the worst first."""
    sign = 1 if higher_is_better(data.metric) else -1
    order = sorted(data.scored, key=lambda trial: sign * (trial.score or 0.0))
    return {trial.id: (number + 0.5) / len(order) for number, trial in enumerate(order)}


def parallel_coordinates(data: PlotData) -> go.Figure | None:
    """A line a trial through its settings to its score, in the order of `score_places`: the best on top.

    Lines through one choice are spread by their score. Dragging along an axis filters, which Optuna's
    `plot_parallel_coordinate` cannot do.
    """
    if not data.drawn:
        return None
    places = score_places(data)
    dimensions = []
    for name in data.drawn:
        kind = data.kinds[name]
        heights = [
            height(kind, data.values[trial][name], place) if name in data.values[trial] else UNUSED
            for trial, place in places.items()
        ]
        ticks = height_ticks(kind) + [(UNUSED, "not used")] * (UNUSED in heights)
        dimensions.append((name, heights, ticks))
    dimensions.append(_score_dimension(data, list(places)))
    lowest = min(0, *(min(heights) for _, heights, _ in dimensions))
    figure = new_figure()
    figure.add_parcoords(
        dimensions=[
            {
                "label": name,
                "values": heights,
                "range": [lowest - EDGE, 1 + EDGE],
                **tick_texts(sorted([(min(0, *heights) - EDGE, ""), *ticks, (1 + EDGE, "")])),
            }
            for name, heights, ticks in dimensions
        ],
        line=_colour_of_lines(data, places),
        labelfont={"size": 14 if len(dimensions) <= 8 else 12},
        tickfont={"size": 12},
        unselected={"line": {"opacity": 0.12}},
    )
    lay_out(figure, height=440)
    figure.update_layout(
        margin={"l": 90, "r": 60, "t": 60, "b": 70}, meta={"narrowest": AXIS_WIDTH * len(dimensions) + 60}
    )
    return figure


def _colour_of_lines(data: PlotData, places: Mapping[str, float]) -> dict[str, Any]:
    """By place, not by score: most scores of a good sweep lie close together. The bar below names the scores."""
    won = data.winner in places
    top = 0.9 if won else 1.0
    shades = sample_colorscale("viridis", [0.92 * (1 - step / 8) for step in range(9)])
    scale = [[top * step / 8, shade] for step, shade in enumerate(shades)]
    sign = 1 if higher_is_better(data.metric) else -1
    scores = (
        min(data.scores, key=lambda s: sign * s),
        median(data.scores),
        max(data.scores, key=lambda s: sign * s),
    )
    words = zip(("worst", "median", "best"), scores, strict=True)
    ticks = [(n * top / 2, f"{word}<br>{score_text(s, data.metric)}") for n, (word, s) in enumerate(words)]
    return {
        "color": [1.0 if trial == data.winner else top * place for trial, place in places.items()],
        "colorscale": [*scale, [top, WINNER], [1.0, WINNER]] if won else scale,
        "cmin": 0,
        "cmax": 1,
        "colorbar": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": -0.06,
            "yanchor": "top",
            "len": 1,
            "thickness": 10,
            "tickangle": 0,
            **tick_texts([*ticks, (1.0, "winner")] if won else ticks),
        },
        "showscale": True,
    }


def _score_dimension(
    data: PlotData, order: Sequence[str]
) -> tuple[str, list[float], list[tuple[float, str]]]:
    """The axis of scores, better is up: its name, heights in the order of the trials' ids, and ticks."""
    scores = {trial.id: score for trial, score in zip(data.scored, data.scores, strict=True)}
    low, high = score_range(data.scores, data.metric)
    ends = [low, high] if higher_is_better(data.metric) else [high, low]
    span = ends[1] - ends[0]
    heights = np.clip([(scores[trial] - ends[0]) / span for trial in order], 0, 1).tolist()
    ticks = [(place, score_text(ends[0] + span * place, data.metric)) for place in (0, 0.25, 0.5, 0.75, 1)]
    return metric_words(data.metric), heights, ruler(ticks)
