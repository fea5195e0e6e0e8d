"""The plot of what the winner confuses."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go

from lorasweep.tuning.report.plots.data import PlotData, plain
from lorasweep.tuning.report.plots.style import LIGHT, lay_out

# The cells of more classes would be larger than Plotly's own code; confusion.csv has them all.
MOST_CLASSES = 200
# Up to this many classes, each cell shows its share.
WRITTEN_CLASSES = 12


def confusion(data: PlotData) -> go.Figure | None:
    """The winner's predictions on the test split, as shares of each true class.

    Returns:
        None without predictions, or with more than `MOST_CLASSES` classes.
    """
    matrix, count = data.confusion, len(data.label_names)
    if matrix is None or not matrix.sum() or count > MOST_CLASSES:
        return None
    totals = matrix.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(totals[:, None] > 0, matrix / totals[:, None], np.nan)
    names = [plain(name, 32) for name in data.label_names]
    texts = [
        [
            f"<b>{names[row]}</b> predicted as <b>{names[column]}</b><br>{rows} of {int(totals[row])} rows"
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
            hovertext=texts,
            colorbar={
                "tickvals": [math.sqrt(mark) for mark in marks],
                "ticktext": [f"{mark:.0%}" for mark in marks],
                "thickness": 14,
                "len": 0.7,
            },
        )
    )
    if count <= WRITTEN_CLASSES:
        percent = [
            [f"{100 * share:.0f}" if share >= 0.005 else "" for share in line] for line in shares.tolist()
        ]
        figure.update_traces(text=percent, texttemplate="%{text}")
    side = min(1100, max(380, 21 * count + 60))
    lay_out(figure, height=side + 150)
    places, ticks = list(range(count)), [plain(name, 24) for name in data.label_names]
    size = 12 if count <= 24 else max(7, min(11, round(0.6 * side / count)))
    axis = {"tickvals": places, "ticktext": ticks, "tickfont_size": size, "showgrid": False}
    figure.update_xaxes(title="predicted", tickangle=-45, **axis)
    figure.update_yaxes(title="true", autorange="reversed", **axis)
    figure.update_layout(width=side + 320, plot_bgcolor=LIGHT, margin_t=20)
    return figure
