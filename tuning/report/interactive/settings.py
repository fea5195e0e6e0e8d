"""Pictures of what a sweep searched for a browser: importances, slices, and parallel coordinates that filter.

They show what `plot_settings` shows, from the same records, with the trials that ASHA stopped. Each function gives
one figure, or None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.colors import to_hex
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from plotly.subplots import make_subplots

from lorasweep.search_spaces.domains import show
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.record.words import METRIC_NAMES, score_text
from lorasweep.tuning.report.interactive.style import add_dots, lay_out, plain, set_score_axis
from lorasweep.tuning.report.plots.settings import (
    choice_place,
    drawn_settings,
    height_of,
    log_steps,
    panel_grid,
    score_places,
    ticks_of,
)
from lorasweep.tuning.report.plots.style import COMPLETED, WINNER, score_range, setting_name
from lorasweep.tuning.report.searched import Searched, importance_of, scored_trials

# Where a line of the parallel coordinates passes below a setting that its trial has no use for.
UNUSED = -0.14
# Of an axis of numbers, to which a marked range snaps.
STEPS = 40


def importances(searched: Searched, trials: Sequence[TrialRecord], metric: Metric) -> go.Figure | None:
    """A bar a searched setting, as `importance_of` reckons them; None with too few trials."""
    shares = importance_of(searched, trials, metric)
    if not shares:
        return None
    names = list(shares)[::-1]
    figure = go.Figure(
        go.Bar(
            x=[shares[name] for name in names],
            y=list(range(len(names))),
            orientation="h",
            marker={"color": COMPLETED},
            text=[f"{shares[name]:.0%}" for name in names],
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
        )
    )
    lay_out(figure, "What decided who is among the best", height=130 + 34 * len(names))
    texts = [plain(setting_name(name)) for name in names]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=texts, showgrid=False)
    figure.update_xaxes(
        title=f"importance (PED-ANOVA, {len(scored_trials(trials))} trials)",
        tickformat=".0%",
        range=[0, 1.1 * max(shares.values())],
    )
    return figure


def slices(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> go.Figure | None:
    """Score against each searched setting; the axis is logarithmic where the space is."""
    scored = scored_trials(trials)
    names = drawn_settings(searched, scored)
    if not names:
        return None
    rows, columns = panel_grid(len(names))
    titles = [plain(setting_name(name)) for name in names]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, shared_yaxes=True, vertical_spacing=0.3 / rows
    )
    shown: set[str] = set()
    for number, name in enumerate(names):
        kind = searched.distributions[name]
        row, column = 1 + number // columns, 1 + number % columns
        having = [trial for trial in scored if name in searched.values[trial.id]]
        values = [(trial, searched.values[trial.id][name]) for trial in having]
        if isinstance(kind, CategoricalDistribution):
            points = [(trial, choice_place(kind, value, trial), trial.score) for trial, value in values]
            texts = [plain(show(choice), 16) for choice in kind.choices]
            turn = {"tickangle": -30} if sum(map(len, texts)) > 26 else {}
            figure.update_xaxes(
                tickvals=list(range(len(texts))),
                ticktext=texts,
                range=[-0.6, len(texts) - 0.4],
                row=row,
                col=column,
                **turn,
            )
        else:
            points = [(trial, value, trial.score) for trial, value in values]
            figure.update_xaxes(row=row, col=column, **_number_axis(kind))
        add_dots(figure, points, searched, metric, winner, shown, row=row, column=column)
    lay_out(figure, f"Validation {METRIC_NAMES[metric]} against each setting", height=170 + 270 * rows)
    figure.update_annotations(font_size=13)
    # Above the panels' names, wherever the figure's height puts them.
    figure.update_layout(margin_t=110, legend_y=1 + 24 / (270 * rows))
    set_score_axis(figure, metric, [trial.score or 0.0 for trial in scored], title=False)
    figure.update_yaxes(title=f"validation {METRIC_NAMES[metric]}", col=1)
    return figure


def _number_axis(kind: BaseDistribution) -> dict[str, Any]:
    if not kind.log:
        edge = 0.05 * (kind.high - kind.low) or 1
        whole = {"tickformat": "d"} if isinstance(kind, IntDistribution) else {}
        return {"range": [kind.low - edge, kind.high + edge], "nticks": 6, **whole}
    low, high = math.log10(kind.low), math.log10(kind.high)
    edge = 0.05 * (high - low) or 1
    decades = range(math.floor(low - edge), math.ceil(high + edge))
    ticks = [step * 10.0**decade for decade in decades for step in log_steps(kind)]
    texts = [show(float(f"{tick:.6g}")) for tick in ticks]
    return {"type": "log", "range": [low - edge, high + edge], "tickvals": ticks, "ticktext": texts}


def _ruler(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """With nameless ticks between them: a range that one marks snaps to ticks, and would jump past trials."""
    named = dict(ticks)
    between = [n / STEPS for n in range(STEPS + 1) if min(abs(n / STEPS - place) for place in named) > 0.01]
    return sorted([*named.items(), *((place, "") for place in between)])


def _distinct(texts: Sequence[str]) -> list[str]:
    """Plotly places an axis's ticks by their texts, so that no two may be equal: blanks at the end tell them apart."""
    return [text + " " * texts[:number].count(text) for number, text in enumerate(texts)]


def line_order(trials: Sequence[TrialRecord], metric: Metric) -> list[TrialRecord]:
    """The trials in the order of their lines in the parallel coordinates: those with a score, the best last."""
    scored = scored_trials(trials)
    places = score_places(scored, metric)
    return sorted(scored, key=lambda trial: places[trial.id])


def parallel_coordinates(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> go.Figure | None:
    """A line a trial through its settings to its score, the best on top; dragging along an axis filters them."""
    scored = scored_trials(trials)
    names = drawn_settings(searched, scored)
    if not names:
        return None
    places = score_places(scored, metric)
    order = line_order(trials, metric)
    dimensions = []
    for name in names:
        kind, ticks = searched.distributions[name], ticks_of(searched.distributions[name])
        heights = [
            height_of(kind, searched.values[trial.id][name], places[trial.id])
            if name in searched.values[trial.id]
            else UNUSED
            for trial in order
        ]
        if not isinstance(kind, CategoricalDistribution):
            ticks = _ruler(ticks)
        ticks += [(UNUSED, "not used")] * (UNUSED in heights)
        dimensions.append((setting_name(name), heights, ticks))
    scores = np.array([trial.score for trial in order], dtype=float)
    low, high = score_range(scores, metric)
    ends = [low, high] if higher_is_better(metric) else [high, low]
    heights = np.clip((scores - ends[0]) / (ends[1] - ends[0]), 0, 1).tolist()
    steps = [(place, ends[0] + (ends[1] - ends[0]) * place) for place in (0, 0.25, 0.5, 0.75, 1)]
    dimensions.append(
        (
            METRIC_NAMES[metric],
            heights,
            _ruler([(place, score_text(value, metric)) for place, value in steps]),
        )
    )
    lowest = min(min(heights) for _, heights, _ in dimensions)
    shades = [[0.9 * p, to_hex(colormaps["viridis"](0.92 * (1 - p)))] for p in np.linspace(0, 1, 9).tolist()]
    figure = go.Figure(
        go.Parcoords(
            dimensions=[
                {
                    "label": plain(name),
                    "values": heights,
                    "range": [min(lowest, 0), 1],
                    "tickvals": [place for place, _ in ticks],
                    "ticktext": _distinct([plain(text, 16) for _, text in ticks]),
                }
                for name, heights, ticks in dimensions
            ],
            line={
                "color": [1.0 if trial.id == winner else 0.9 * places[trial.id] for trial in order],
                "colorscale": [*shades, [0.95, WINNER], [1, WINNER]],
                "cmin": 0,
                "cmax": 1,
            },
            labelfont={"size": 14},
            tickfont={"size": 12},
            unselected={"line": {"opacity": 0.12}},
        )
    )
    lay_out(figure, "Parallel coordinates", height=460)
    figure.update_layout(margin={"l": 90, "r": 60, "t": 120, "b": 30})
    return figure
