"""Plots of what was searched: which settings mattered, the score by each of them, and parallel coordinates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from lorasweep.search_spaces.domains import show
from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.results import TrialRecord
from lorasweep.tuning.record.words import METRIC_NAMES, score_text
from lorasweep.tuning.report.plots.data import PlotData, distinct, quiet_optuna
from lorasweep.tuning.report.plots.style import (
    COMPLETED,
    WINNER,
    add_dots,
    lay_out,
    score_range,
    set_score_axis,
)

# With fewer scores than these, an importance is noise.
IMPORTANCE_TRIALS = 4
# Height at which a line of the parallel coordinates passes a setting that its trial does not use.
UNUSED = -0.14
# Ticks of an axis of numbers, to which a marked range snaps.
STEPS = 40


def importances(data: PlotData) -> go.Figure | None:
    """A bar for each searched setting; together they are 1, the largest is on top.

    Optuna's PED-ANOVA (Watanabe et al., arXiv 2304.10255) over all trials with a score. It only asks which
    trials are among the best, and ASHA stops a trial for not being there, so that the smaller budget of the
    stopped ones does little harm. The best are a tenth of the trials, but at least 5, and at most a third.

    Returns:
        None with fewer than `IMPORTANCE_TRIALS` scores, or when all are equal.
    """
    count = len(data.scored)
    if not data.drawn or count < IMPORTANCE_TRIALS or len(set(data.scores)) < 2:
        return None
    best = min(1 / 3, max(0.1, 5 / count))
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
        figure = optuna.visualization.plot_param_importances(data.study, evaluator=evaluator)
    lay_out(figure, height=104 + 34 * len(data.drawn))
    figure.update_traces(
        marker_color=COMPLETED, text=None, texttemplate="%{x:.0%}", hovertemplate=None, hoverinfo="skip"
    )
    figure.update_layout(margin_t=34)
    figure.update_yaxes(title=None, showgrid=False)
    highest = max(figure.data[0].x)
    figure.update_xaxes(title=f"importance ({count} trials)", tickformat=".0%", range=[0, 1.1 * highest])
    return figure


def slices(data: PlotData) -> go.Figure | None:
    """Score by each searched setting; the axis is logarithmic where the space is.

    Optuna's `plot_slice` puts all panels in one row, and shows neither the winner nor how a trial ended.
    """
    names = data.drawn
    if not names:
        return None
    # Three panels in a row, but four as two by two.
    columns = 2 if len(names) == 4 else min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = make_subplots(
        rows, columns, subplot_titles=names, shared_yaxes=True, vertical_spacing=0.3 / rows
    )
    for number, name in enumerate(names):
        kind, row, column = data.kinds[name], 1 + number // columns, 1 + number % columns
        values = [(t, data.values[t.id][name]) for t in data.scored if name in data.values[t.id]]
        points: list[tuple[TrialRecord, float, float | None]] = [(t, value, t.score) for t, value in values]
        if isinstance(kind, CategoricalDistribution):
            points = [(t, _choice_place(kind, value, t), t.score) for t, value in values]
        add_dots(figure, data, points, panel=(row, column))
        figure.update_xaxes(row=row, col=column, **_axis_of(kind))
    lay_out(figure, height=110 + 270 * rows)
    figure.update_annotations(font_size=13)
    # The legend stands above the panels' names, whatever the figure's height.
    figure.update_layout(margin_t=80, legend_y=1 + 24 / (270 * rows))
    set_score_axis(figure, data.metric, data.scores)
    for column in range(2, columns + 1):
        figure.update_yaxes(title=None, col=column)
    return figure


def _choice_place(kind: CategoricalDistribution, value: Any, trial: TrialRecord) -> float:
    """Where a trial stands beside its choice's tick: the golden ratio sets those of one choice apart."""
    return float(kind.choices.index(value) + (trial.number * 0.618 % 1 - 0.5) * 0.36)


def _axis_of(kind: BaseDistribution) -> dict[str, Any]:
    if isinstance(kind, CategoricalDistribution):
        texts = kind.choices
        turn = {"tickangle": -30} if sum(map(len, texts)) > 26 else {}
        count = len(texts)
        return {"tickvals": list(range(count)), "ticktext": texts, "range": [-0.6, count - 0.4], **turn}
    if not kind.log:
        edge = 0.05 * (kind.high - kind.low) or 1
        whole = {"tickformat": "d"} if isinstance(kind, IntDistribution) else {}
        return {"range": [kind.low - edge, kind.high + edge], "nticks": 6, **whole}
    low, high = math.log10(kind.low), math.log10(kind.high)
    # The more decades there are, the fewer ticks has each.
    steps = (1, 2, 5) if high - low < 1.3 else (1, 3) if high - low < 2.6 else (1,)
    edge = 0.05 * (high - low) or 1
    decades = range(math.floor(low - edge), math.ceil(high + edge))
    ticks = [float(f"{step * 10.0**decade:.6g}") for decade in decades for step in steps]
    texts = [show(tick) for tick in ticks]
    return {"type": "log", "range": [low - edge, high + edge], "tickvals": ticks, "ticktext": texts}


def score_places(data: PlotData) -> dict[str, float]:
    """Trial → its place in (0, 1) among those with a score, evenly spaced, the worst first."""
    sign = 1 if higher_is_better(data.metric) else -1
    order = sorted(data.scored, key=lambda trial: sign * (trial.score or 0.0))
    return {trial.id: (number + 0.5) / len(order) for number, trial in enumerate(order)}


def parallel_coordinates(data: PlotData) -> go.Figure | None:
    """A line a trial through its settings to its score, in the order of `score_places`: the best on top.

    Lines through one choice are spread by their score. Dragging along an axis filters, which Optuna's
    `plot_parallel_coordinate` cannot do.
    """
    if not data.drawn:
        return None
    places = score_places(data)
    # By place, not by score: most scores of a good sweep lie close together.
    colours = [1.0 if trial == data.winner else 0.9 * place for trial, place in places.items()]
    shades = sample_colorscale("viridis", [0.92 * (1 - step / 8) for step in range(9)])
    dimensions = []
    for name in data.drawn:
        kind = data.kinds[name]
        heights = [
            _height(kind, data.values[trial][name], place) if name in data.values[trial] else UNUSED
            for trial, place in places.items()
        ]
        ticks = _ticks_of(kind) + [(UNUSED, "not used")] * (UNUSED in heights)
        dimensions.append((name, heights, ticks))
    dimensions.append(_score_dimension(data, list(places)))
    lowest = min(min(heights) for _, heights, _ in dimensions)
    figure = go.Figure(
        go.Parcoords(
            dimensions=[
                {
                    "label": name,
                    "values": heights,
                    "range": [min(lowest, 0), 1],
                    "tickvals": [place for place, _ in ticks],
                    "ticktext": distinct([text for _, text in ticks]),
                }
                for name, heights, ticks in dimensions
            ],
            line={
                "color": colours,
                "colorscale": [
                    *([0.9 * step / 8, shade] for step, shade in enumerate(shades)),
                    [0.95, WINNER],
                    [1, WINNER],
                ],
                "cmin": 0,
                "cmax": 1,
            },
            labelfont={"size": 14},
            tickfont={"size": 12},
            unselected={"line": {"opacity": 0.12}},
        )
    )
    lay_out(figure, height=400)
    figure.update_layout(margin={"l": 90, "r": 60, "t": 60, "b": 30})
    return figure


def _score_dimension(
    data: PlotData, order: Sequence[str]
) -> tuple[str, list[float], list[tuple[float, str]]]:
    """The axis of scores, better is up: its name, heights in the order of the trials' ids, and ticks."""
    scores = {trial.id: score for trial, score in zip(data.scored, data.scores, strict=True)}
    low, high = score_range(data.scores, data.metric)
    ends = [low, high] if higher_is_better(data.metric) else [high, low]
    span = ends[1] - ends[0]
    heights = np.clip([(scores[trial] - ends[0]) / span for trial in order], 0, 1).tolist()
    ticks = [(place, score_text(ends[0] + span * place, data.metric)) for place in (0, 0.25, 0.5, 0.75, 1)]
    return METRIC_NAMES[data.metric], heights, _ruler(ticks)


def _height(kind: BaseDistribution, value: Any, spread: float) -> float:
    """Where a value stands on its axis, in [0, 1]."""
    if isinstance(kind, CategoricalDistribution):
        return float((kind.choices.index(value) + 0.5 + 0.5 * (spread - 0.5)) / len(kind.choices))
    if kind.high == kind.low:
        return 0.5
    if kind.log:
        return math.log(value / kind.low) / math.log(kind.high / kind.low)
    return float((value - kind.low) / (kind.high - kind.low))


def _ticks_of(kind: BaseDistribution) -> list[tuple[float, str]]:
    """An axis's ticks: (height in [0, 1], text)."""
    if isinstance(kind, CategoricalDistribution):
        skip = math.ceil(len(kind.choices) / 12)
        return [(_height(kind, choice, 0.5), choice) for choice in kind.choices[::skip]]
    values = np.geomspace(kind.low, kind.high, 3) if kind.log else np.linspace(kind.low, kind.high, 3)
    if isinstance(kind, IntDistribution):
        values = np.unique(values.round())
    return _ruler([(_height(kind, value, 0.5), show(float(f"{value:.2g}"))) for value in values.tolist()])


def _ruler(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """With nameless ticks in between: a marked range snaps to ticks, and would jump past trials."""
    named = dict(ticks)
    between = [n / STEPS for n in range(STEPS + 1) if min(abs(n / STEPS - place) for place in named) > 0.01]
    return sorted([*named.items(), *((place, "") for place in between)])
