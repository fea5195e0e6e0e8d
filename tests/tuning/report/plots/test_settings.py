"""Pictures of settings: what they show is read back from the drawn objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from drawn_trials import KINDS, TRIALS, only, trial

from lorasweep.tuning.report.plots import settings as plot_settings
from lorasweep.tuning.report.searched import searched_of


def test_slices_have_the_spaces_own_axes() -> None:
    """Logarithmic where the space is; a choice `null` is one; full trials are not in the rank's plot."""
    trials = [*TRIALS, trial(7, [0.8], method="full")]
    figure = plot_settings.slices(searched_of(trials, known=KINDS), trials, "accuracy", "t003")
    assert figure is not None
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["rank", "alpha", "base dropout", "rate", "dropout", "batch"]
    assert panels["rate"].get_xscale() == "log"
    assert panels["dropout"].get_xscale() == panels["batch"].get_xscale() == "linear"
    assert [text.get_text() for text in panels["base dropout"].get_xticklabels()] == ["null", "0", "0.1"]
    counts = {name: len(axes.lines) for name, axes in panels.items()}
    assert counts == {"rank": 4, "alpha": 4, "base dropout": 5, "rate": 5, "dropout": 4, "batch": 5}
    rates = sorted(float(np.asarray(line.get_xdata()).item()) for line in panels["rate"].lines)
    drawn = [
        t.hyperparameters.learning_rate for t in trials if t.score is not None and math.isfinite(t.score)
    ]
    assert rates == sorted(drawn)
    ranks = [round(float(np.asarray(line.get_xdata()).item())) for line in panels["rank"].lines]
    assert ranks == [0, 1, 3, 0], "each over its own choice"


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 0.9), ("loss", 0.2)])
def test_in_parallel_coordinates_better_is_up(metric: Any, best: float) -> None:
    """Also for a loss; a line has a gap where a trial has no use for a setting."""
    trials = [*TRIALS, trial(7, [0.5], method="full")]
    axes = only(plot_settings.parallel_coordinates(searched_of(trials, known=KINDS), trials, metric, "t003"))
    lines = {line.get_ydata()[-1]: line for line in axes.lines if len(np.asarray(line.get_ydata())) == 7}  # type: ignore[index]
    assert len(lines) == 5
    span = (0.9 - 0.5) / 0.7 if metric == "loss" else (0.5 - 0.2) / 0.7
    full = next(line for height, line in lines.items() if height == pytest.approx(span))
    assert np.isnan(np.asarray(full.get_ydata())).tolist() == [True, True, False, False, True, False, False]
    assert max(lines) == pytest.approx(1)
    top = next(text for text in axes.texts if text.get_position() == (5.96, 1.0))
    assert top.get_text() == (f"{best:.0%}" if metric == "accuracy" else f"{best}")
