"""The picture of what a winner confuses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lorasweep.tuning.report.plots.style import new_figure, short

# More classes than these, and the figures in the cells, or the names beside them, cannot be read.
ANNOTATED_CLASSES, NAMED_CLASSES = 12, 80


def confusion(matrix: np.ndarray, label_names: Sequence[str]) -> Figure | None:
    """What the winner takes for what, as shares of each true class; a class without rows stays grey.

    Args:
        matrix: int, shape (classes, classes): rows by true class and predicted class.
    """
    count = len(label_names)
    totals = matrix.sum(axis=1, keepdims=True)
    if not totals.sum():
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(totals > 0, matrix / totals, np.nan)
    side = min(11.0, max(2.6, 0.5 * count if count <= ANNOTATED_CLASSES else 0.19 * count))
    names = [short(name, 24) for name in label_names]
    figure, axes = new_figure("Confusion on the test split (share of the true class)", side + 2.6, side + 1.9)
    axes.grid(visible=False)
    axes.set_facecolor("#dee2e6")
    # Few of a class's rows go to any single wrong one: the root lets them be seen beside the diagonal.
    picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, shrink=0.7, pad=0.02, format=PercentFormatter(xmax=1, decimals=0))
    bar.ax.tick_params(labelsize=8)
    if count <= NAMED_CLASSES:
        size = 9 if count <= ANNOTATED_CLASSES else max(5.0, min(8.0, 0.7 * 72 * side / count))
        axes.set_xticks(
            range(count),
            names,
            rotation=45,
            ha="right",
            rotation_mode="anchor",
            fontsize=size,
            parse_math=False,
        )
        axes.set_yticks(range(count), names, fontsize=size, parse_math=False)
    if count <= ANNOTATED_CLASSES:
        for row, column in np.argwhere(shares >= 0.005).tolist():
            share = shares[row, column]
            colour = "white" if share > 0.3 else "#212529"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=colour)
    axes.set_xlabel("predicted" if count <= NAMED_CLASSES else "predicted (number of the class)")
    axes.set_ylabel("true" if count <= NAMED_CLASSES else "true (number of the class)")
    return figure
