"""The plot of what the winner confuses."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go

from lorasweep.tuning.report.plots.axes import tick_texts
from lorasweep.tuning.report.plots.data import PlotData, plain, short
from lorasweep.tuning.report.plots.style import LIGHT, lay_out, new_figure

# The cells of more classes would be larger than Plotly's own code; confusion.csv has them all.
MOST_CLASSES = 200
# Up to this many classes, each cell shows its share; those of more would be too small to read.
WRITTEN_CLASSES = 45
# Pixels of a cell in which "100" can be read in the smallest letters.
NUMBER_WIDTH = 19
# Pixels of a cell without a number.
CELL_WIDTH = 5


def confusion(data: PlotData) -> go.Figure | None:
    """The winner's predictions on the test split, as shares of each true class, or of several labels a text of each.

    Returns:
        None without predictions, or with more than `MOST_CLASSES` classes.
    """
    matrix, count = data.confusion, len(data.label_names)
    several = data.label_rows is not None
    heads = ("label that they get", "label that texts have") if several else ("predicted", "true")
    between = "have it and get" if several else "predicted as"
    if matrix is None or not matrix.sum() or count > MOST_CLASSES:
        return None
    totals = matrix.sum(axis=1) if data.label_rows is None else data.label_rows
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(totals[:, None] > 0, matrix / totals[:, None], np.nan)
    names = [plain(name, 32) for name in data.label_names]
    texts = [
        [
            f"<b>{names[row]}</b> {between} <b>{names[column]}</b><br>{rows} of {int(totals[row])} rows"
            if rows
            else ""
            for column, rows in enumerate(line)
        ]
        for row, line in enumerate(matrix.tolist())
    ]
    written = count <= WRITTEN_CLASSES
    percent = [[f"{100 * share:.0f}" if share >= 0.005 else "" for share in line] for line in shares.tolist()]
    figure = new_figure()
    figure.add_heatmap(
        # Few of a class's rows go to any single wrong one: the root lets them be seen beside the diagonal.
        z=[[None if math.isnan(share) else math.sqrt(share) for share in line] for line in shares.tolist()],
        zmin=0,
        zmax=1,
        colorscale="Blues",
        xgap=1,
        ygap=1,
        text=percent if written else None,
        texttemplate="%{text}" if written else None,
        textfont_size=13 if count <= 12 else 11 if count <= 24 else 9,
        hoverinfo="text",
        hovertext=texts,
        colorbar={
            "orientation": "h",
            "title": {"text": f"share of the true {'label' if several else 'class'}", "side": "top"},
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "len": 1,
            "thickness": 10,
            **tick_texts([(math.sqrt(mark), f"{mark:.0%}") for mark in (0, 0.05, 0.2, 0.5, 1)]),
            "tickangle": 0,
        },
    )
    cell = max(7, min(46, 900 // count))
    lay_out(figure, height=200 + max(9, cell) * count)
    places, ticks = list(range(count)), [plain(name, 24) for name in data.label_names]
    size = 12 if count <= 24 else max(7, min(10, cell // 2))
    axis = {"tickvals": places, "ticktext": ticks, "tickfont_size": size, "showgrid": False}
    figure.update_xaxes(title=heads[0], tickangle=-45, **axis)
    figure.update_yaxes(title=heads[1], autorange="reversed", **axis)
    # The labels beside the cells, about as wide as their letters.
    beside = 60 + 0.56 * size * max(len(short(name, 24)) for name in data.label_names)
    narrowest = beside + count * (NUMBER_WIDTH if written else CELL_WIDTH)
    meta = {"narrowest": round(narrowest), "widest": round(beside + 1.6 * cell * count + 40)}
    figure.update_layout(plot_bgcolor=LIGHT, margin_t=20, meta=meta)
    return figure
