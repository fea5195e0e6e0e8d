"""Plots of trials and of the winner: the truth about stopped ones, and hover texts, read back from the figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from drawn_trials import TRIALS, drawn, trial

from lorasweep.tuning.report.plots import style
from lorasweep.tuning.report.plots.data import plain, short
from lorasweep.tuning.report.plots.settings import importances, parallel_coordinates, slices
from lorasweep.tuning.report.plots.trials import adapter_sizes, history, learning_curves
from lorasweep.tuning.report.plots.winner import NUMBER_WIDTH, confusion


def marks(figure: go.Figure | None) -> dict[str, list[tuple[Any, Any, str]]]:
    """Legend's word → (x, y, hover text) of the marks, without lines."""
    assert figure is not None
    found: dict[str, list[tuple[Any, Any, str]]] = {}
    for trace in figure.data:
        if trace.mode == "markers":
            found.setdefault(trace.name, []).extend(zip(trace.x, trace.y, trace.hovertext, strict=True))
    return found


def test_stopped_trials_stand_as_what_they_are() -> None:
    """Every trial with a score, by its state; a failed one without a score lies below all of them."""
    found = marks(history(drawn(TRIALS, winner="t003")))
    assert {name: [(x, y) for x, y, _ in points] for name, points in found.items() if name != "failed"} == {
        "completed": [(0, 0.6)],
        "stopped early": [(1, 0.2)],
        "running": [(4, 0.33)],
        "winner t003": [(3, 0.9)],
    }
    assert [x for x, _, _ in found["failed"]] == [2, 5]
    assert all(y < 0.2 for _, y, _ in found["failed"])
    lines = found["stopped early"][0][2].split("<br>")
    assert lines[:3] == ["<b>t001</b> stopped early at rung 1", "accuracy 20.0%", "rank 8"]
    assert {"rate 1.8e-4", "base dropout 0", "2.0 K parameters"} <= set(lines)


@pytest.mark.parametrize(
    ("metric", "best"), [("accuracy", (0.6, 0.6, 0.9, 0.9)), ("loss", (0.6, 0.2, 0.2, 0.2))]
)
def test_the_best_so_far_goes_with_the_metric(metric: Any, best: tuple[float, ...]) -> None:
    """Per cent for an accuracy, plain numbers for a loss; also where the first trial failed or one is missing."""
    figure = history(drawn(TRIALS, metric))
    assert figure is not None
    step = next(trace for trace in figure.data if trace.mode == "lines")
    assert (tuple(step.x), tuple(step.y)) == ((0, 1, 3, 4), best)
    assert bool(figure.layout.yaxis.tickformat) == (metric == "accuracy")
    later = history(drawn(TRIALS[2:], metric))
    assert later is not None
    step = next(trace for trace in later.data if trace.mode == "lines")
    assert (tuple(step.x), step.y[0]) == ((3, 4), 0.9)


def test_a_loss_that_ran_away_is_above_the_axis() -> None:
    """It does not press the others flat, and the plot says so; an accuracy is never cut."""
    trials = [trial(number, [loss]) for number, loss in enumerate([0.5, 0.6, 0.7, 0.8, 4e5])]
    figure = history(drawn(trials, "loss"))
    assert figure is not None
    low, high = figure.layout.yaxis.range
    assert low < 0.5 < 0.8 < high < 5
    assert "higher" in figure.layout.annotations[0].text
    calm = history(drawn(trials[:4], "loss"))
    assert calm is not None
    assert calm.layout.yaxis.range is None
    assert not calm.layout.annotations


def test_curves_end_in_a_mark_of_their_state() -> None:
    """All finite evaluations; a click on a state's word hides its curves; the winner is thick and lies on top."""
    figure = learning_curves(drawn(TRIALS, winner="t003"))
    assert figure is not None
    curves = {trace.y: trace for trace in figure.data if trace.mode == "lines+markers"}
    assert set(curves) == {(0.3, 0.5, 0.6), (0.2,), (0.4, 0.7, 0.9), (0.35, 0.33), (0.1,)}
    won = curves[0.4, 0.7, 0.9]
    assert won.line.color == style.WINNER
    assert won.line.width > 2 * curves[0.3, 0.5, 0.6].line.width
    assert list(curves)[-1] == won.y
    assert tuple(won.x) == (0.5, 1.0, 1.5)
    assert curves[0.3, 0.5, 0.6].hovertext[1].startswith("epoch 1: 50.0%<br><b>t000</b> completed")
    ends = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert {name: trace.y for name, trace in ends.items()} == {
        "winner t003": (0.9,),
        "completed": (0.6,),
        "stopped early": (0.2,),
        "failed": (0.1,),
        "running": (0.33,),
    }
    assert ends["stopped early"].marker.symbol == "x-thin-open"
    assert ends["completed"].marker.symbol == "circle"
    assert all(trace.showlegend for trace in ends.values())
    assert not any(trace.showlegend for trace in curves.values())
    assert {trace.legendgroup for trace in curves.values()} == set(ends)


def test_bubbles_and_full_fine_tuning() -> None:
    """Areas go with what is trained; full fine-tuning stands at the right of the largest rank."""
    trials = [
        trial(0, [0.5], rank=4).model_copy(update={"trainable_parameters": 1_000_000}),
        trial(1, [0.6], rank=16).model_copy(update={"trainable_parameters": 4_000_000}),
        trial(2, [0.7], method="full"),
    ]
    figure = adapter_sizes(drawn(trials))
    assert figure is not None
    (dots,) = figure.data
    assert (dots.x, dots.y) == ((2.0, 4.0, 5.0), (0.5, 0.6, 0.7))
    assert dots.marker.size[1] / dots.marker.size[0] == pytest.approx(2)
    assert figure.layout.xaxis.ticktext == ("4", "16", "full")


def test_confusion_tells_rows_and_escapes_labels() -> None:
    """A label is no markup for Plotly, nor an end of the page's script; too many classes are left out."""
    names = ["<a href='javascript:x'>a</a>", "</script><script>x", "b"]
    data = replace(drawn([]), confusion=np.array([[3, 1, 0], [0, 0, 0], [2, 0, 998]]), label_names=names)
    figure = confusion(data)
    assert figure is not None
    (heat,) = figure.data
    assert heat.z[0][1] == pytest.approx(math.sqrt(0.25))
    assert list(heat.z[1]) == [None] * 3, "a class without rows is not 0"
    assert [list(line) for line in heat.text] == [["75", "25", ""], ["", "", ""], ["", "", "100"]]
    first, second = plain(names[0]), plain(names[1])
    assert heat.hovertext[0][1] == f"<b>{first}</b> predicted as <b>{second}</b><br>1 of 4 rows"
    page = figure.to_json(engine="json")
    assert "<" not in page
    assert "<a" not in str(json.loads(page)["data"])
    many = replace(data, confusion=np.eye(201, dtype=int), label_names=[str(n) for n in range(201)])
    assert confusion(many) is None
    assert confusion(replace(data, confusion=np.zeros((3, 3), dtype=int))) is None
    assert confusion(drawn(TRIALS)) is None


def test_many_classes_with_long_names_keep_them() -> None:
    """41 names, cut in the middle so that they still differ, and room for a figure in each cell."""
    names = [f"a category of news with a name as long as this, number {n}\nof 41" for n in range(41)]
    figure = confusion(replace(drawn([]), confusion=np.eye(41, dtype=int), label_names=names))
    assert figure is not None
    labels = figure.layout.yaxis.ticktext
    assert len(set(labels)) == 41
    assert max(map(len, labels)) == 24
    assert figure.data[0].text[3][3] == "100"
    assert 41 * NUMBER_WIDTH < figure.layout.meta["narrowest"] <= 1016, "no wider than the page"
    few = confusion(replace(drawn([]), confusion=np.eye(3, dtype=int), label_names=["no", "yes", "both"]))
    assert few is not None
    assert few.layout.meta["narrowest"] < 360, "no wider than a phone"
    many = replace(drawn([]), confusion=np.eye(46, dtype=int), label_names=[str(n) for n in range(46)])
    figure = confusion(many)
    assert figure is not None
    assert figure.data[0].text is None, "too many to be read"


def test_one_trial_and_none_at_all() -> None:
    """With one trial there is something to see, without any there is no figure; none is drawn from failures."""
    for trials, some in (([trial(0, [0.5])], True), ([], False), ([TRIALS[2], trial(1, [math.inf])], False)):
        data = drawn(trials, winner="t000")
        for draw in (learning_curves, history, slices, parallel_coordinates, adapter_sizes):
            figure = draw(data)
            assert (figure is not None) == some, draw.__name__
        assert importances(data) is None


def test_long_texts_lose_their_middle() -> None:
    """On one line, without control characters."""
    assert short("a\tb\x00c" + "d" * 50 + "END", 13) == "a b cd…dddEND"
    assert short("exactly", 7) == "exactly"
