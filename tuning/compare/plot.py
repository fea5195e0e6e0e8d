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
from lorasweep.tuning.report.plots.data import plain
from lorasweep.tuning.report.plots.style import COMPLETED, WINNER, lay_out
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
    """A panel for each cost, over one axis of accuracies."""
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.06)
    parameters = [math.log10(max(1, row.trainable_parameters)) for row in rows]
    seconds = [row.epoch_seconds for row in rows]
    ends = ((min(parameters) - 0.3, max(parameters) + 0.3), (0, 1.12 * max(seconds)))
    for column, (values, (low, high)) in enumerate(zip((parameters, seconds), ends, strict=True), start=1):
        for row, value in zip(rows, values, strict=True):
            assert row.test is not None
            lowest, highest = row.interval["accuracy"]
            accuracy, text = row.test.accuracy, plain(name(row))
            # The name stands where there is space; rows that differ in precision alone lie on one another.
            side = "left" if value - low > 0.55 * (high - low) else "right"
            figure.add_scatter(
                x=[10**value if column == 1 else value],
                y=[accuracy],
                error_y={
                    "symmetric": False,
                    "array": [highest - accuracy],
                    "arrayminus": [accuracy - lowest],
                },
                mode="markers+text",
                marker={"color": WINNER if row.plan.id == TUNED else COMPLETED, "size": 10},
                text=[f" {text} "],
                textposition=f"{'bottom' if row.plan.precision == 'fp32' else 'top'} {side}",
                showlegend=False,
                hoverinfo="text",
                hovertext=[
                    f"<b>{text}</b><br>{accuracy:.1%} ({lowest:.1%} to {highest:.1%})<br>"
                    f"{parameters_text(row.trainable_parameters)} parameters, {row.epoch_seconds:.1f} s an epoch"
                ],
                row=1,
                col=column,
            )
    lay_out(figure, height=480)
    figure.update_yaxes(tickformat=".4~p")
    figure.update_yaxes(title="test accuracy", col=1)
    figure.update_xaxes(
        title="trained parameters", type="log", range=ends[0], dtick=1, exponentformat="SI", col=1
    )
    figure.update_xaxes(title="seconds an epoch", range=ends[1], col=2)
    return figure
