"""A comparison as a picture: what accuracy costs in parameters, and in time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lorasweep.tuning.compare.record import ComparedRow
from lorasweep.tuning.compare.rows import TUNED
from lorasweep.tuning.compare.text import name
from lorasweep.tuning.record.words import parameters_text
from lorasweep.tuning.report.plots.style import COMPLETED, WINNER, plain_axes, png

LABELS = ("full", "full", "LoRA", "LoRA")


def comparison_plot(rows: Sequence[ComparedRow]) -> bytes | None:
    """Test accuracy with its interval against trained parameters and against the time of an epoch, as a PNG."""
    done = [row for row in rows if row.test is not None and row.same_as is None]
    if not done:
        return None
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_xscale("log")
    left.set_xlabel("trained parameters")
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: parameters_text(round(value))))
    counts = [row.trainable_parameters for row in done]
    left.set_xlim(min(counts) / 2, 2 * max(counts))
    right.set_xlabel("seconds an epoch")
    right.set_xlim(0, 1.12 * max(row.epoch_seconds for row in done))
    costs = (
        (left, [float(row.trainable_parameters) for row in done]),
        (right, [row.epoch_seconds for row in done]),
    )
    for axes, values in costs:
        plain_axes(axes)
        axes.margins(y=0.12)
        for row, value in zip(done, values, strict=True):
            _draw_row(axes, row, value, above=row.plan.precision != "fp32")
    left.set_ylabel("test accuracy")
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    return png(figure)


def _draw_row(axes: Axes, row: ComparedRow, value: float, above: bool) -> None:
    """A row's accuracy with its interval at what it costs, its name on the side that has room.

    Args:
        above: the name stands above the mark; rows that differ in precision alone lie on one another.
    """
    assert row.test is not None
    low, high = row.interval["accuracy"]
    accuracy, colour = row.test.accuracy, WINNER if row.plan.id == TUNED else COMPLETED
    spread = [[accuracy - low], [high - accuracy]]
    axes.errorbar([value], [accuracy], yerr=spread, color=colour, fmt="o", capsize=3)
    to_the_left = axes.transAxes.inverted().transform(axes.transData.transform((value, accuracy)))[0] > 0.55
    axes.annotate(
        name(row),
        (value, accuracy),
        xytext=(-7 if to_the_left else 7, 8 if above else -14),
        textcoords="offset points",
        ha="right" if to_the_left else "left",
        fontsize=8,
        color=colour,
    )
