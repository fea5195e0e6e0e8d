"""Texts of strangers in pictures."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from drawn_trials import KINDS, trial
from optuna.distributions import CategoricalDistribution

from lorasweep.tuning.report.plots import settings as plot_settings
from lorasweep.tuning.report.plots import style as plot_style
from lorasweep.tuning.report.plots import winner as plot_winner
from lorasweep.tuning.report.searched import searched_of


def test_texts_of_strangers_are_drawn_as_they_are(recwarn: pytest.WarningsRecorder) -> None:
    """No mathematics in a `$`, no new lines, no complaint about a script that the font lacks; no global trace."""
    names = [
        r"$\frac{$",
        "a$b$",
        "<script>alert(1)</script>",
        "two\nlines",
        "../../x",
        "ニュース",
        "x" * 3000,
    ]
    before = dict(matplotlib.rcParams)
    pictures = [plot_winner.confusion(np.eye(7, dtype=int), names)]
    kinds = {"target_modules": CategoricalDistribution((r"$\frac{$", "ニュース\n")), "rank": KINDS["rank"]}
    trials = [
        trial(n, [0.5 + n / 10], target_modules=kinds["target_modules"].choices[n]).model_copy(
            update={"searched": tuple(kinds)}
        )
        for n in range(2)
    ]
    searched = searched_of(trials, known=kinds)
    pictures += [
        f(searched, trials, "accuracy") for f in (plot_settings.slices, plot_settings.parallel_coordinates)
    ]
    for figure in pictures:
        assert figure is not None
        assert len(plot_style.png(figure)) > 5000
    assert dict(matplotlib.rcParams) == before
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]
    assert plot_style.short("a\tb\x00c" + "d" * 50 + "END", 13) == "a b cd…dddEND"
    assert plot_style.short("exactly", 7) == "exactly"
