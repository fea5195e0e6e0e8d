"""The report's plots, in the order of the page. To add one, write its function and add a row to `PLOTS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import plotly.graph_objects as go

from lorasweep.tuning.report.plots.data import PlotData
from lorasweep.tuning.report.plots.settings import importances, parallel_coordinates, slices
from lorasweep.tuning.report.plots.trials import adapter_sizes, history, learning_curves
from lorasweep.tuning.report.plots.winner import confusion


@dataclass(frozen=True)
class Heading:
    """What a page says of a figure; `name` is its key there."""

    name: str
    title: str
    caption: str


@dataclass(frozen=True)
class Plot(Heading):
    """A plot of the report.

    Attributes:
        draw: returns the figure, or None where there is nothing to draw. The figure has no title; every text
            of a user's in it has passed through `plain`.
        section: of the page.
    """

    draw: Callable[[PlotData], go.Figure | None]
    section: Literal["settings", "mistakes", "trials"] = "settings"


PLOTS = (
    Plot(
        "importances",
        "Importance of each setting",
        "How much each setting decided which trials are among the best (Optuna's PED-ANOVA). Trials stopped early "
        "count with their best score: they were stopped because they were not among the best. With fewer than "
        "about 20 trials this is only a hint.",
        importances,
    ),
    Plot(
        "slices",
        "Score by setting",
        "Each trial's score against each setting. Numbers stand where they are, on a logarithmic axis where they "
        "are spread that way. Names have no order; trials with the same name are set apart.",
        slices,
    ),
    Plot(
        "adapter_sizes",
        "Score by rank and size",
        "What a larger adapter gains. The area of a circle is the number of trainable parameters.",
        adapter_sizes,
    ),
    Plot(
        "confusion",
        "Confusion matrix",
        "Rows are true classes, columns predicted classes. Colours, and numbers where there is room for them, are "
        "per cent of the row. A class without test rows is grey.",
        confusion,
        "mistakes",
    ),
    Plot(
        "learning_curves",
        "Learning curves",
        "Validation scores of each trial during training. A cross ends the curve of a trial that was stopped early.",
        learning_curves,
        "trials",
    ),
    Plot(
        "history",
        "Optimization history",
        "Score of each trial in the order of proposal, and the best score so far. Failed trials without a score "
        "stand below the others.",
        history,
        "trials",
    ),
    Plot(
        "parallel_coordinates",
        "All settings together",
        "One line per trial, coloured by its place among the scores; the winner is orange. Drag along an axis to "
        "select the trials that pass there, also on several axes: the table below shows only these. Click the axis "
        "to clear it.",
        parallel_coordinates,
        "trials",
    ),
)


TOGETHER = (
    "Rows are labels that texts have, columns labels that they get; a cell is the share of the texts with the row's "
    "label that get the column's. The diagonal is the recall. Other cells are mistakes only where the texts lack that "
    "label."
)


def draw_plots(data: PlotData) -> dict[Heading, go.Figure]:
    """The plots of `PLOTS` that there is something to draw for, with their figures."""
    figures = {_worded(plot, data): plot.draw(data) for plot in PLOTS}
    return {plot: figure for plot, figure in figures.items() if figure is not None}


def _worded(plot: Plot, data: PlotData) -> Plot:
    """The plot with what it says where a text may have several labels."""
    if data.label_rows is None or plot.draw is not confusion:
        return plot
    return replace(plot, title="Labels that go together", caption=TOGETHER)
