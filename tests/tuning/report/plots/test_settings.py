"""Plots of settings, read back from the figures."""

from __future__ import annotations

import itertools
import math
from typing import Any

import optuna
import pytest
from drawn_trials import TRIALS, drawn, trial
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from lorasweep.tuning.report.plots import settings as plots
from lorasweep.tuning.report.plots import style
from lorasweep.tuning.report.plots.data import plot_data
from lorasweep.tuning.report.plots.table import draw_plots
from lorasweep.tuning.report.reading import own_trials

MIXED = [*TRIALS, trial(7, [0.8], method="full")]


def test_slices_have_the_spaces_own_axes_and_the_stopped_trials() -> None:
    """Logarithmic where the space is, names where it has names; each state once in the legend."""
    figure = plots.slices(drawn(MIXED, winner="t003"))
    assert figure is not None
    axes = [figure.layout[f"xaxis{number or ''}"] for number in ("", 2, 3, 4, 5, 6)]
    names = ["rank", "alpha", "base dropout", "rate", "dropout", "batch"]
    assert [axis.title.text for axis in axes] == [f"<b>{name}</b>" for name in names]
    assert [axis.type for axis in axes] == ["log", "log", None, "log", None, None]
    assert (axes[0].tickvals, axes[0].ticktext) == ((4, 8, 16, 32), ("4", "8", "16", "32"))
    assert axes[2].ticktext == ("null", "0", "0.1")
    assert axes[3].range[0] < -4 < -2 < axes[3].range[1]
    rates = [trace for trace in figure.data if trace.xaxis == "x4"]
    points = {trace.name: list(trace.x) for trace in rates}
    assert points["stopped early"] == [TRIALS[1].hyperparameters.learning_rate]
    assert sum(map(len, points.values())) == 5
    ranks = [x for trace in figure.data if trace.xaxis == "x" for x in trace.x]
    assert sorted(ranks) == [4, 4, 8, 32], "where they are, and none of full fine-tuning"
    dropouts = [x for trace in figure.data if trace.xaxis == "x3" for x in trace.x]
    assert len(set(dropouts)) == len(dropouts), "set apart: null has no place among numbers"
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(legend) == ["completed", "running", "stopped early", "winner t003"]
    assert (figure.layout.grid.rows, figure.layout.grid.columns) == (2, 3)
    assert figure.layout.meta["panels"] == 6


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_lines_go_through_what_a_trial_drew(metric: Any) -> None:
    """Better is up, the best is drawn last, the winner in its own colour; what is not used passes below."""
    data = drawn(MIXED, metric, "t000")
    figure = plots.parallel_coordinates(data)
    assert figure is not None
    (lines,) = figure.data
    order = list(plots.score_places(data))
    assert order[-1] == ("t003" if metric == "accuracy" else "t001")
    by_name = {axis.label: dict(zip(order, axis.values, strict=True)) for axis in lines.dimensions}
    assert list(by_name) == ["rank", "alpha", "base dropout", "rate", "dropout", "batch", metric]
    assert max(by_name[metric], key=by_name[metric].__getitem__) == order[-1]
    full = (0.9 - 0.8) / 0.7 if metric == "loss" else (0.8 - 0.2) / 0.7
    assert by_name[metric]["t007"] == pytest.approx(full)
    best = dict(zip(lines.dimensions[-1].tickvals, lines.dimensions[-1].ticktext, strict=True))[1]
    assert best == ("90.0%" if metric == "accuracy" else "0.2000")
    assert by_name["rank"]["t007"] == plots.UNUSED
    assert "not used" in lines.dimensions[0].ticktext
    assert "not used" not in lines.dimensions[3].ticktext
    assert by_name["rate"]["t000"] == pytest.approx(0)
    assert dict(zip(order, lines.line.color, strict=True))["t000"] == 1.0
    assert sorted(lines.line.color)[-2] < 0.9
    legend = dict(zip(lines.line.colorbar.ticktext, lines.line.colorbar.tickvals, strict=True))
    worst, best = ("20.0%", "90.0%") if metric == "accuracy" else ("0.9000", "0.2000")
    assert (legend[f"worst<br>{worst}"], legend[f"best<br>{best}"], legend["winner"]) == (0, 0.9, 1)
    assert all(
        axis.range[0] <= min(axis.values) and max(axis.values) <= axis.range[1] for axis in lines.dimensions
    )


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_importances_count_stopped_trials(metric: Any) -> None:
    """Only the rate decides, and only two trials have completed: Optuna alone would know next to nothing."""
    trials = [
        trial(
            number, [0.9 if number % 9 > 6 else 0.2 + 0.01 * number], "completed" if number < 2 else "stopped"
        )
        for number in range(40)
    ]
    if metric == "loss":
        trials = [t.model_copy(update={"score": 1 - (t.score or 0.0)}) for t in trials]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    figure = plots.importances(drawn(trials, metric))
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert figure is not None
    shares = dict(zip(figure.data[0].y, figure.data[0].x, strict=True))
    assert list(shares)[-1] == "rate", "the largest on top"
    assert shares["rate"] > 0.5
    assert sum(shares.values()) == pytest.approx(1)
    again = plots.importances(drawn(trials, metric))
    assert again is not None
    assert again.data[0].x == figure.data[0].x


@pytest.mark.parametrize(("count", "part"), [(4, 1 / 3), (12, 1 / 3), (20, 0.25), (50, 0.1), (90, 0.1)])
def test_the_best_part_grows_with_the_sweep(count: int, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the trials, but 5 where there are so many, and never more than a third."""
    parts: list[float] = []
    evaluator = optuna.importance.PedAnovaImportanceEvaluator

    def record(*, target_quantile: float) -> Any:
        parts.append(target_quantile)
        return evaluator(target_quantile=target_quantile)

    monkeypatch.setattr(optuna.importance, "PedAnovaImportanceEvaluator", record)
    assert plots.importances(drawn([trial(number, [number / 100]) for number in range(count)]))
    assert parts == [pytest.approx(part)]


def test_no_importance_is_made_up() -> None:
    """Too few trials, or all alike, or some without the setting."""
    trials = [trial(number, [0.1 * number]) for number in range(5)]
    assert plots.importances(drawn(trials)) is not None
    assert plots.importances(drawn(trials[:3])) is None
    assert plots.importances(drawn([*trials[:3], trial(9, [math.nan]), TRIALS[2]])) is None
    assert plots.importances(drawn([trial(number, [0.5]) for number in range(5)])) is None
    assert plots.importances(plot_data(trials[:1] * 5, "accuracy")) is None, "nothing was searched"
    mixed = plots.importances(drawn([*trials, *(trial(n, [0.5], method="full") for n in range(5, 9))]))
    assert mixed is not None
    assert "rank" in mixed.data[0].y


def test_settings_of_words_have_their_places() -> None:
    """With null among them, and a choice of words that decides."""
    kinds = {
        "rank_pattern": CategoricalDistribution((None, "query=16,value=8")),
        "init": CategoricalDistribution(("default", "pissa", "olora")),
        "lora_plus_ratio": FloatDistribution(1, 16, log=True),
    }
    trials = [
        trial(
            n,
            [0.9 if n % 3 == 1 else 0.2 + 0.001 * n],
            rank_pattern=(None, "query=16,value=8")[n % 2],
            init=("default", "pissa", "olora")[n % 3],
            lora_plus_ratio=1.0 + n % 7,
        ).model_copy(update={"searched": tuple(kinds)})
        for n in range(40)
    ]
    data = plot_data(trials, "accuracy", "t001", kinds=kinds)
    slices, lines = plots.slices(data), plots.parallel_coordinates(data)
    shares = plots.importances(data)
    assert slices is not None
    assert lines is not None
    assert shares is not None
    assert slices.layout.xaxis.ticktext == ("null", "query=16,value=8")
    assert lines.data[0].dimensions[1].ticktext[1:-1] == ("default", "pissa", "olora")
    assert (shares.data[0].y[-1], shares.data[0].x[-1] > 0.5) == ("init", True)


def test_names_of_strangers_are_escaped() -> None:
    """A space's function may call a setting, and a choice, anything: no plot, and none of Optuna's, has markup."""
    choices = ("<b>1</b>", "</script>", "<img src=x>", "%{x}")
    kinds = {"<i>name</i>": CategoricalDistribution(choices), "<a href='x'>": FloatDistribution(0, 1)}
    study = optuna.create_study()
    for n in range(6):
        values = dict(zip(kinds, (choices[n % 4], n / 6), strict=True))
        study.add_trial(create_trial(value=n, params=values, distributions=kinds))
    trials = [trial(n, [0.5 + n / 10]) for n in range(6)]
    data = plot_data(trials, "accuracy", "t005", drawn=own_trials(study))
    ours = {plot.name: figure for plot, figure in draw_plots(data).items()}
    theirs = [optuna.visualization.plot_slice(data.study), optuna.visualization.plot_rank(data.study)]
    assert {"importances", "slices", "parallel_coordinates", "history"} <= set(ours)
    for figure in (*ours.values(), *theirs):
        text = str(figure)
        assert not [mark for mark in ("<i>", "<b>1", "<img", "</script", "<a ") if mark in text]
        assert "<" not in figure.to_json(engine="json")
    assert "&lt;b&gt;1" in str(ours["slices"])
    assert "&lt;i&gt;name" in str(ours["importances"])


def test_colours_without_a_winner_mean_scores_alone() -> None:
    """No orange, and no word of a winner."""
    figure = plots.parallel_coordinates(drawn(TRIALS))
    assert figure is not None
    line = figure.data[0].line
    assert len(line.colorbar.ticktext) == 3
    assert style.WINNER not in str(line.colorscale)


def test_an_axis_of_numbers_can_be_marked_anywhere() -> None:
    """Marked ranges snap to ticks: between the few with a name there are others, but none between choices."""
    figure = plots.parallel_coordinates(drawn(MIXED))
    assert figure is not None
    for axis in figure.data[0].dimensions:
        gaps = [high - low for low, high in itertools.pairwise(axis.tickvals)]
        assert len(axis.tickvals) == len(axis.ticktext)
        assert axis.tickvals[0] < min(axis.values), "a range that is marked to the end holds what is there"
        assert axis.tickvals[-1] > max(axis.values)
        assert (max(gaps) < 0.15) == (axis.label in ("rate", "dropout", "batch", "accuracy"))
        assert len([text for text in axis.ticktext if text.strip()]) <= 6
        assert len(set(axis.ticktext)) == len(axis.ticktext), "Plotly places ticks by their texts"
