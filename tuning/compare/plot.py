"""A comparison as a picture: what accuracy costs in parameters, and in time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tuning.compare.record import ComparedRow
from tuning.compare.rows import TUNED
from tuning.compare.text import name
from tuning.pages.plot_style import COMPLETED, WINNER, plain_axes, png
from tuning.report import parameters_text

LABELS = ("full", "full", "LoRA", "LoRA")


def comparison_plot(rows: Sequence[ComparedRow]) -> bytes | None:
    """Test accuracy with its interval against trained parameters and against the time of an epoch, as a PNG."""
    done = [row for row in rows if row.test is not None]
    if not done:
        return None
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    costs = [
        (left, "trained parameters", [float(row.trainable_parameters) for row in done], parameters_text),
        (right, "seconds an epoch", [row.epoch_seconds for row in done], lambda value: f"{value:g} s"),
    ]
    for axes, title, values, text in costs:
        plain_axes(axes)
        axes.set_xscale("log")
        axes.set_xlabel(title)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _, text=text: text(value)))
        axes.xaxis.set_minor_formatter("")
        for number, (row, value) in enumerate(zip(done, values, strict=True)):
            assert row.test is not None
            low, high = row.interval["accuracy"]
            colour = WINNER if row.plan.id == TUNED else COMPLETED
            accuracy = row.test.accuracy
            axes.errorbar(
                [value],
                [accuracy],
                yerr=[[accuracy - low], [high - accuracy]],
                color=colour,
                fmt="o",
                capsize=3,
            )
            # Rows that differ in precision alone lie on one another on the left.
            axes.annotate(
                name(row),
                (value, accuracy),
                xytext=(6, 8 if number % 2 else -14),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
        axes.margins(x=0.35, y=0.12)
    left.set_ylabel("test accuracy")
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    return png(figure)
