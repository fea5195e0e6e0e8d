"""Pictures of trials: what they show is read back from the drawn objects, without training anything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from drawn_trials import KINDS, TRIALS, only, texts, trial

from lorasweep.tuning.report.plots import settings as plot_settings
from lorasweep.tuning.report.plots import style as plot_style
from lorasweep.tuning.report.plots import trials as plot_trials
from lorasweep.tuning.report.searched import searched_of


def test_learning_curves_show_every_evaluation_and_how_trials_ended() -> None:
    """Finite ones only, over epochs; the winner is thick and lies on top, a stopped trial ends in a cross."""
    axes = only(plot_trials.learning_curves(TRIALS, "accuracy", "t003"))
    curves = [line for line in axes.lines if line.get_marker() == "None"]
    points = {tuple(np.asarray(line.get_ydata()).tolist()): line for line in curves}
    assert set(points) == {(0.3, 0.5, 0.6), (0.2,), (0.4, 0.7, 0.9), (0.35, 0.33), (0.1,)}
    won = points[0.4, 0.7, 0.9]
    assert won.get_color() == plot_style.WINNER
    assert won.get_linewidth() > 2 * points[0.3, 0.5, 0.6].get_linewidth()
    assert won.get_zorder() > max(line.get_zorder() for line in curves if line is not won)
    assert np.asarray(won.get_xdata()).tolist() == [0.5, 1.0, 1.5]
    ends = {float(np.asarray(e.get_ydata())[0]): e.get_marker() for e in axes.lines if e not in curves}
    assert ends == {0.6: "o", 0.2: "x", 0.9: "o", 0.33: ">", 0.1: "X"}
    figure = plot_trials.learning_curves(TRIALS, "accuracy", "t003")
    assert figure is not None
    assert texts(figure) == ["winner t003", "completed", "stopped early", "failed", "running"]


@pytest.mark.parametrize(
    ("metric", "best"), [("accuracy", [0.6, 0.6, 0.9, 0.9]), ("loss", [0.6, 0.2, 0.2, 0.2])]
)
def test_the_history_goes_with_the_metric(metric: Any, best: list[float]) -> None:
    """Best so far: highest accuracy, lowest loss; a failed trial stands at the bottom, not at a score."""
    axes = only(plot_trials.history(TRIALS[::-1], metric, "t003"))
    step = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert np.asarray(step.get_xdata()).tolist() == [0, 1, 3, 4]
    assert np.asarray(step.get_ydata()).tolist() == best
    failed = [line for line in axes.lines if line.get_marker() == "X"]
    assert sorted(float(np.asarray(line.get_xdata()).item()) for line in failed) == [2, 5]
    assert all(line.get_transform() != axes.transData for line in failed)
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    assert [np.asarray(star.get_xdata()).item() for star in stars] == [3]


def test_a_loss_that_ran_away_does_not_press_the_others_flat() -> None:
    """The axis ends above the useful ones, and says so; an accuracy is never cut."""
    losses = [0.5, 0.6, 0.7, 0.8, 4e5]
    trials = [trial(number, [loss]) for number, loss in enumerate(losses)]
    axes = only(plot_trials.history(trials, "loss"))
    low, high = axes.get_ylim()
    assert low < 0.5
    assert 0.8 < high < 5
    assert any("higher" in text.get_text() for text in axes.texts)
    calm = only(plot_trials.history(trials[:4], "loss"))
    assert calm.get_ylim()[1] >= 0.8
    assert not calm.texts


def test_a_bubble_is_as_large_as_what_is_trained() -> None:
    """By area; full fine-tuning stands at the right of the largest rank."""
    trials = [
        trial(0, [0.5], rank=4).model_copy(update={"trainable_parameters": 250_000}),
        trial(1, [0.6], rank=16).model_copy(update={"trainable_parameters": 1_000_000}),
        trial(2, [0.7], method="full").model_copy(update={"trainable_parameters": 4_000_000}),
    ]
    figure = plot_trials.adapter_sizes(trials, "accuracy", "t001")
    axes = only(figure)
    drawn = {tuple(np.asarray(dots.get_offsets())[0].tolist()): dots for dots in axes.collections}
    assert set(drawn) == {(2.0, 0.5), (4.0, 0.6), (5.0, 0.7)}
    areas = [float(drawn[place].get_sizes()[0]) for place in ((2.0, 0.5), (4.0, 0.6), (5.0, 0.7))]  # type: ignore[attr-defined]
    assert areas[2] / areas[1] == pytest.approx(4)
    assert areas[1] / areas[0] == pytest.approx(4)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["4", "16", "full"]
    assert figure is not None
    assert texts(figure)[-2:] == ["250.0 K", "4.0 M"]


def test_one_trial_and_none_at_all() -> None:
    """With one trial there is something to see, without any there is no figure; none is drawn from failures."""
    for trials, some in (([trial(0, [0.5])], True), ([], False), ([TRIALS[2], trial(1, [math.inf])], False)):
        searched = searched_of(trials, known=KINDS)
        figures = [
            plot_trials.learning_curves(trials, "accuracy", "t000"),
            plot_trials.history(trials, "accuracy", "t000"),
            plot_settings.slices(searched, trials, "accuracy", "t000"),
            plot_settings.parallel_coordinates(searched, trials, "accuracy", "t000"),
            plot_trials.adapter_sizes(trials, "accuracy", "t000"),
        ]
        assert [figure is not None for figure in figures] == [some] * 5
        assert plot_settings.importances(searched, trials, "accuracy") is None
        if some:
            # All the values of an axis are one: there is still something to lay out.
            assert figures[3] is not None
            assert plot_style.png(figures[3]).startswith(b"\x89PNG")
