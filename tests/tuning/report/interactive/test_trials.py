"""Interactive pictures of trials: the truth about stopped ones, and what a mark tells, read back from the figures."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from drawn_trials import KINDS, TRIALS, trial

from lorasweep.tuning.report.interactive import trials as interactive_trials
from lorasweep.tuning.report.interactive.style import plain
from lorasweep.tuning.report.plots import style as plot_style
from lorasweep.tuning.report.searched import Searched, searched_of


def known(trials: list[Any]) -> Searched:
    """What they drew, by the space's distributions."""
    return searched_of(trials, known=KINDS)


def marks(figure: go.Figure | None) -> dict[str, list[tuple[Any, Any, str]]]:
    """Legend's word → (x, y, what a mark tells) of what one can point at."""
    assert figure is not None
    found: dict[str, list[tuple[Any, Any, str]]] = {}
    for trace in figure.data:
        if trace.hoverinfo == "text":
            found.setdefault(trace.name, []).extend(zip(trace.x, trace.y, trace.hovertext, strict=True))
    return found


def test_stopped_trials_stand_as_what_they_are() -> None:
    """Every trial with a score, by its state; a failed one without a score lies below all of them."""
    found = marks(interactive_trials.history(known(TRIALS), TRIALS, "accuracy", "t003"))
    assert {name: [(x, y) for x, y, _ in points] for name, points in found.items() if name != "failed"} == {
        "completed": [(0, 0.6)],
        "stopped early": [(1, 0.2)],
        "running": [(4, 0.33)],
        "winner t003": [(3, 0.9)],
    }
    assert [x for x, _, _ in found["failed"]] == [2, 5]
    assert all(y < 0.2 for _, y, _ in found["failed"])
    told = found["stopped early"][0][2].split("<br>")
    assert told[:3] == ["<b>t001</b> stopped early at rung 1", "accuracy 20.0%", "rank 8"]
    assert {"rate 1.8e-4", "base dropout 0", "2.0 K parameters"} <= set(told)


@pytest.mark.parametrize(
    ("metric", "best"), [("accuracy", (0.6, 0.6, 0.9, 0.9)), ("loss", (0.6, 0.2, 0.2, 0.2))]
)
def test_the_best_so_far_goes_with_the_metric(metric: Any, best: tuple[float, ...]) -> None:
    """Per cent for an accuracy, plain numbers for a loss."""
    figure = interactive_trials.history(known(TRIALS), TRIALS, metric)
    assert figure is not None
    step = next(trace for trace in figure.data if trace.mode == "lines")
    assert (tuple(step.x), tuple(step.y)) == ((0, 1, 3, 4), best)
    assert bool(figure.layout.yaxis.tickformat) == (metric == "accuracy")


def test_a_loss_that_ran_away_is_above_the_axis() -> None:
    """As in the plain picture."""
    trials = [trial(number, [loss]) for number, loss in enumerate([0.5, 0.6, 0.7, 0.8, 4e5])]
    figure = interactive_trials.history(known(trials), trials, "loss")
    assert figure is not None
    low, high = figure.layout.yaxis.range
    assert low < 0.5 < 0.8 < high < 5
    assert "higher" in figure.layout.annotations[0].text


def test_curves_end_in_a_mark_of_their_state() -> None:
    """All finite evaluations; a click on a state's word hides its curves."""
    figure = interactive_trials.learning_curves(known(TRIALS), TRIALS, "accuracy", "t003")
    assert figure is not None
    curves = {trace.y: trace for trace in figure.data if trace.hoverinfo == "text"}
    assert set(curves) == {(0.3, 0.5, 0.6), (0.2,), (0.4, 0.7, 0.9), (0.35, 0.33), (0.1,)}
    assert curves[0.2,].marker.symbol == ("x-thin-open",)
    assert curves[0.3, 0.5, 0.6].marker.symbol == ("circle",) * 3
    assert curves[0.4, 0.7, 0.9].line.color == plot_style.WINNER
    assert curves[0.3, 0.5, 0.6].hovertext[1].startswith("epoch 1: 50.0%<br><b>t000</b> completed")
    legend = {trace.name: trace.legendgroup for trace in figure.data if trace.showlegend is not False}
    assert set(legend) == {"winner t003", "completed", "stopped early", "failed", "running"}
    assert {trace.legendgroup for trace in curves.values()} == set(legend.values())


def test_bubbles_and_full_fine_tuning() -> None:
    """Areas go with what is trained; full fine-tuning stands at the right of the largest rank."""
    trials = [
        trial(0, [0.5], rank=4).model_copy(update={"trainable_parameters": 1_000_000}),
        trial(1, [0.6], rank=16).model_copy(update={"trainable_parameters": 4_000_000}),
        trial(2, [0.7], method="full"),
    ]
    figure = interactive_trials.adapter_sizes(known(trials), trials, "accuracy")
    assert figure is not None
    (dots,) = figure.data
    assert (dots.x, dots.y) == ((2.0, 4.0, 5.0), (0.5, 0.6, 0.7))
    assert dots.marker.size[1] / dots.marker.size[0] == pytest.approx(2)
    assert figure.layout.xaxis.ticktext == ("4", "16", "full")


def test_confusion_tells_rows_and_escapes_labels() -> None:
    """A label is no markup for Plotly, nor an end of the page's script; too many classes are left out."""
    names = ["<a href='javascript:x'>a</a>", "</script><script>x", "b"]
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 998]])
    figure = interactive_trials.confusion(matrix, names)
    assert figure is not None
    (heat,) = figure.data
    assert heat.z[0][1] == pytest.approx(math.sqrt(0.25))
    assert list(heat.z[1]) == [None] * 3, "a class without rows is not 0"
    assert (
        heat.hovertext[0][1] == f"<b>{plain(names[0])}</b> taken for <b>{plain(names[1])}</b><br>1 of 4 rows"
    )
    page = figure.to_json(engine="json")
    assert "<" not in page
    assert "<a" not in str(json.loads(page)["data"])
    assert interactive_trials.confusion(np.eye(201, dtype=int), [str(n) for n in range(201)]) is None
    assert interactive_trials.confusion(np.zeros((2, 2), dtype=int), ["a", "b"]) is None


def test_nothing_to_draw() -> None:
    """No figure without a score."""
    failed = [TRIALS[2]]
    for draw in (
        interactive_trials.history,
        interactive_trials.learning_curves,
        interactive_trials.adapter_sizes,
    ):
        assert draw(known(failed), failed, "accuracy") is None
        assert draw(known(TRIALS[:1]), TRIALS[:1], "accuracy", "t000") is not None
