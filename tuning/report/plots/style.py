"""What the pictures of a sweep have in common: colours and marks, the axis of scores, legends, and the PNG itself.

Texts of somebody's are never read as mathematics, and long ones lose their middle. Nothing here touches pyplot
or any other global state.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from PIL import Image

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.record.words import METRIC_NAMES, SHORT_NAMES

WINNER, COMPLETED, STOPPED, FAILED = "#e8590c", "#2b6cb0", "#9aa3ad", "#343a40"
COLOURS = {"completed": COMPLETED, "stopped": STOPPED, "failed": FAILED, "running": "#74b816"}
MARKERS = {"completed": "o", "stopped": "x", "failed": "X", "running": ">"}
WORDS = {"completed": "completed", "stopped": "stopped early", "failed": "failed", "running": "running"}
DPI = 150


def png(figure: Figure) -> bytes:
    """The figure as a PNG of at most 256 colours, which is a third of the size and looks the same."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    with warnings.catch_warnings():
        # Of a script that the font lacks: the names stand in the page's tables too.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas.draw()  # type: ignore[no-untyped-call]
    out = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def short(text: str, length: int) -> str:
    """A text on one line without control characters, its middle left out where it is too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) <= length:
        return line
    tail = (length - 1) // 2
    return f"{line[: length - 1 - tail]}…{line[len(line) - tail :]}"


def setting_name(name: str) -> str:
    """A setting as pictures call it: `_lr_ratio` is "lr ratio"."""
    return short(SHORT_NAMES.get(name, name).lstrip("_").replace("_", " "), 18)


def new_figure(title: str, width: float = 6.4, height: float = 3.7) -> tuple[Figure, Axes]:
    """A titled figure with one pair of axes; inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    write_title(figure, title)
    plain_axes(axes)
    return figure, axes


def write_title(figure: Figure, title: str) -> None:
    """The figure's title, at its left edge."""
    figure.suptitle(title, fontsize=11, weight="bold", x=0.01, ha="left")


def plain_axes(axes: Axes) -> None:
    """A light grid behind the marks, and no frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e9ecef", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def draw_dots(axes: Axes, xs: Sequence[float], trials: Sequence[TrialRecord], winner: str | None) -> None:
    """A mark for each trial at its score, whose shape says how it ended; a star for the winner."""
    for x, trial in zip(xs, trials, strict=True):
        won = trial.id == winner
        style = {"marker": "*", "ms": 13, "mec": "white", "zorder": 4} if won else {"ms": 5, "zorder": 3}
        colour = WINNER if won else COLOURS[trial.state]
        axes.plot([x], [trial.score], **({"marker": MARKERS[trial.state], "color": colour, "ls": ""} | style))  # type: ignore[arg-type]


def score_range(values: Sequence[float] | np.ndarray, metric: Metric) -> tuple[float, float]:
    """Lowest and highest score to draw: a loss that has run away must not press all others flat."""
    low, high = float(np.min(values)), float(np.max(values))
    if metric == "loss":
        most = 3 * float(np.median(values))
        high = max((float(value) for value in values if value <= most), default=high)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def score_axis(axes: Axes, metric: Metric, values: Sequence[float], label: bool = True) -> None:
    """Per cent, or nats; a score beyond `score_range` is above the axis, and that is said."""
    if label:
        axes.set_ylabel(f"validation {METRIC_NAMES[metric]}" + (" (nats)" if metric == "loss" else ""))
    if metric != "loss":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 3):g}%"))
    low, high = score_range(values, metric)
    if high < max(values):
        edge = 0.08 * (high - low)
        axes.set_ylim(low - edge, high + edge)
        if label:
            axes.annotate(
                "some are higher ↑", (0.99, 0.98), xycoords="axes fraction", fontsize=8, ha="right", va="top"
            )


def tick_text(value: float, metric: Metric) -> str:
    """A score beside an axis, short."""
    return f"{value:.3g}" if metric == "loss" else f"{value:.0%}"


def add_legend(
    place: Axes | Figure,
    trials: Sequence[TrialRecord],
    winner: str | None,
    more: Sequence[Line2D] = (),
    marks: str = "",
) -> None:
    """States of the trials below the figure.

    Args:
        marks: "stars" where the winner is drawn as one, "bubbles" where all trials are; else it is a line.
    """
    star: dict[str, Any] = {"marker": "*", "ms": 12, "ls": "", "mec": "white"}
    won = {"stars": star, "bubbles": {"marker": "o", "ls": ""}}.get(marks, {"marker": "o", "lw": 2.4})
    handles = [Line2D([], [], color=WINNER, label=f"winner {winner}", **won)] if winner else []
    handles += [
        Line2D(
            [],
            [],
            color=COLOURS[state],
            marker="o" if marks == "bubbles" else MARKERS[state],
            ls="",
            label=word,
        )
        for state, word in WORDS.items()
        if any(trial.state == state and trial.id != winner for trial in trials)
    ]
    figure = place if isinstance(place, Figure) else place.figure
    assert isinstance(figure, Figure)
    lines = [*handles, *more]
    # Six side by side are wider than the figure.
    columns = len(lines) if len(lines) <= 5 else math.ceil(len(lines) / 2)
    # The largest bubble is higher than its line.
    pad = 0.9 if marks == "bubbles" else 0.4
    figure.legend(
        handles=lines,
        loc="outside lower center",
        ncols=max(1, columns),
        fontsize=8.5,
        frameon=False,
        borderpad=pad,
    )
