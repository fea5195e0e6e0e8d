"""A comparison as a page: what accuracy costs in parameters, and in time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lorasweep.tuning.compare.record import ComparedRow
from lorasweep.tuning.compare.rows import TUNED
from lorasweep.tuning.compare.text import name
from lorasweep.tuning.record.words import parameters_text
from lorasweep.tuning.report.page import plots_page
from lorasweep.tuning.report.plots.style import COMPLETED, WINNER, lay_out, plain
from lorasweep.tuning.report.plots.table import Heading

COSTS = Heading(
    "costs",
    "Test accuracy against its costs",
    "Bars are 95 % intervals of the test accuracy; the tuned row is orange. Point at a mark for its figures.",
)


def comparison_page(rows: Sequence[ComparedRow]) -> str | None:
    """Test accuracy with its interval against trained parameters and seconds an epoch, as an HTML page.

    Returns:
        None when no row was trained.
    """
    done = [row for row in rows if row.test is not None and row.same_as is None]
    return plots_page("Comparison", {COSTS: costs(done)}) if done else None


def costs(rows: Sequence[ComparedRow]) -> go.Figure:
    """Two panels over one axis of accuracies; each row is one entry of the legend."""
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.06)
    for row in rows:
        assert row.test is not None
        low, high = row.interval["accuracy"]
        accuracy, tuned = row.test.accuracy, row.plan.id == TUNED
        count, text = parameters_text(row.trainable_parameters), plain(name(row))
        about = f"{accuracy:.1%} ({low:.1%} to {high:.1%})<br>{count} parameters, {row.epoch_seconds:.1f} s an epoch"
        for column, value in enumerate((row.trainable_parameters, row.epoch_seconds), start=1):
            figure.add_scatter(
                x=[value],
                y=[accuracy],
                error_y={"symmetric": False, "array": [high - accuracy], "arrayminus": [accuracy - low]},
                mode="markers+text",
                marker={"color": WINNER if tuned else COMPLETED, "size": 10},
                text=[text],
                # Rows that differ in precision alone lie on one another: their names stand apart.
                textposition="top center" if row.plan.precision != "fp32" else "bottom center",
                name=text,
                showlegend=False,
                hoverinfo="text",
                hovertext=[f"<b>{text}</b><br>{about}"],
                row=1,
                col=column,
            )
    lay_out(figure, height=480)
    figure.update_yaxes(tickformat=".4~p")
    figure.update_yaxes(title="test accuracy", col=1)
    counts = [row.trainable_parameters for row in rows]
    ends = [math.log10(max(1, min(counts)) / 3), math.log10(3 * max(1, *counts))]
    figure.update_xaxes(
        title="trained parameters", type="log", range=ends, dtick=1, exponentformat="SI", col=1
    )
    longest = 1.25 * max(row.epoch_seconds for row in rows)
    figure.update_xaxes(title="seconds an epoch", range=[-0.25 * longest, longest], col=2)
    return figure
