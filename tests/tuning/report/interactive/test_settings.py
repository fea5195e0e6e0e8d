"""Interactive pictures of settings, read back from the figures."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from drawn_trials import KINDS, TRIALS, trial
from optuna.distributions import CategoricalDistribution

from lorasweep.tuning.report.interactive import settings as pictures
from lorasweep.tuning.report.searched import searched_of

MIXED = [*TRIALS, trial(7, [0.8], method="full")]
SEARCHED = searched_of(MIXED, known=KINDS)


def test_slices_have_the_spaces_own_axes_and_the_stopped_trials() -> None:
    """Logarithmic where the space is, names where it has names; each state once in the legend."""
    figure = pictures.slices(SEARCHED, MIXED, "accuracy", "t003")
    assert figure is not None
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["rank", "alpha", "base dropout", "rate", "dropout", "batch"]
    axes = [figure.layout[f"xaxis{number or ''}"] for number in ("", 2, 3, 4, 5, 6)]
    assert [axis.type for axis in axes] == [None, None, None, "log", None, None]
    assert axes[2].ticktext == ("null", "0", "0.1")
    assert axes[3].range[0] < -4 < -2 < axes[3].range[1]
    rates = [trace for trace in figure.data if trace.xaxis == "x4"]
    drawn = {trace.name: list(trace.x) for trace in rates}
    assert drawn["stopped early"] == [TRIALS[1].hyperparameters.learning_rate]
    assert sum(map(len, drawn.values())) == 5
    ranks = [x for trace in figure.data if trace.xaxis == "x" for x in trace.x]
    assert sorted(round(x) for x in ranks) == [0, 0, 1, 3], "none of full fine-tuning"
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(legend) == ["completed", "running", "stopped early", "winner t003"]


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_lines_go_through_what_a_trial_drew(metric: Any) -> None:
    """Better is up, the best is drawn last, the winner in its own colour; what is not used passes below."""
    figure = pictures.parallel_coordinates(SEARCHED, MIXED, metric, "t000")
    assert figure is not None
    (lines,) = figure.data
    order = [trial.id for trial in pictures.line_order(MIXED, metric)]
    assert order[-1] == ("t003" if metric == "accuracy" else "t001")
    by_name = {axis.label: dict(zip(order, axis.values, strict=True)) for axis in lines.dimensions}
    assert list(by_name) == ["rank", "alpha", "base dropout", "rate", "dropout", "batch", metric]
    assert max(by_name[metric], key=by_name[metric].__getitem__) == order[-1]
    assert by_name["rank"]["t007"] == pictures.UNUSED
    assert "not used" in lines.dimensions[0].ticktext
    assert "not used" not in lines.dimensions[3].ticktext
    assert by_name["rate"]["t000"] == pytest.approx(0)
    assert dict(zip(order, lines.line.color, strict=True))["t000"] == 1.0
    assert sorted(lines.line.color)[-2] < 0.9
    assert all(
        axis.range[0] <= min(axis.values) and max(axis.values) <= axis.range[1] for axis in lines.dimensions
    )


def test_importances_are_those_of_the_plain_picture() -> None:
    """The largest on top, in per cent; none with too few trials."""
    trials = [
        trial(n, [0.9 if n % 9 > 6 else 0.2 + 0.01 * n], "stopped" if n else "completed") for n in range(40)
    ]
    figure = pictures.importances(searched_of(trials, known=KINDS), trials, "accuracy")
    assert figure is not None
    assert figure.layout.yaxis.ticktext[-1] == "rate"
    assert sum(figure.data[0].x) == pytest.approx(1)
    assert pictures.importances(SEARCHED, TRIALS[:2], "accuracy") is None


def test_names_of_strangers_are_escaped() -> None:
    """A space's function may call a setting, and a choice, anything."""
    name = "target_modules"
    kinds = {name: CategoricalDistribution(("<b>1</b>", "</script>"))}
    trials = [
        trial(n, [0.5 + n / 10], **{name: kinds[name].choices[n]}).model_copy(update={"searched": (name,)})
        for n in range(2)
    ]
    searched = searched_of(trials, known=kinds)
    for draw in (pictures.slices, pictures.parallel_coordinates):
        figure = draw(searched, trials, "accuracy")
        assert figure is not None
        assert "<img" not in str(figure)
        assert "<b>1" not in str(figure)
        assert "&lt;b&gt;1" in str(figure)
        assert "<" not in figure.to_json(engine="json")
        assert draw(searched, [], "accuracy") is None


def test_an_axis_of_numbers_can_be_marked_anywhere() -> None:
    """Marked ranges snap to ticks: between the few with a name there are others, but none between choices."""
    figure = pictures.parallel_coordinates(SEARCHED, MIXED, "accuracy")
    assert figure is not None
    for axis in figure.data[0].dimensions:
        gaps = [high - low for low, high in itertools.pairwise(axis.tickvals)]
        assert len(axis.tickvals) == len(axis.ticktext)
        assert (max(gaps) < 0.15) == (axis.label in ("rate", "dropout", "batch", "accuracy"))
        assert len([text for text in axis.ticktext if text.strip()]) <= 6
        assert len(set(axis.ticktext)) == len(axis.ticktext), "Plotly places ticks by their texts"
