"""Pictures of a sweep, drawn from its records: how trials learned, what mattered, what the winner confuses.

Each function gives one figure, or None where there is nothing to draw. Scores are validation scores by the
sweep's metric; a score that is missing or not finite is not drawn. Texts of somebody's are never read as
mathematics, and long ones lose their middle. Nothing here touches pyplot or any other global state.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from PIL import Image

from search_spaces.domains import show
from training.evaluate import higher_is_better
from training.settings import Metric
from tuning.record import SCORE, TrialRecord
from tuning.report import METRIC_NAMES, SHORT_NAMES, parameters_text
from tuning.study import first_number

WINNER, COMPLETED, STOPPED, FAILED = "#e8590c", "#2b6cb0", "#9aa3ad", "#343a40"
COLOURS = {"completed": COMPLETED, "stopped": STOPPED, "failed": FAILED, "running": "#74b816"}
MARKERS = {"completed": "o", "stopped": "x", "failed": "X", "running": ">"}
WORDS = {"completed": "completed", "stopped": "stopped early", "failed": "failed", "running": "running"}

# Settings that full fine-tuning has no use for, whatever was drawn for them.
ADAPTER_SETTINGS = ("rank", "alpha", "target_modules", "dropout")
# Below so many trials with a score, an importance is a reading of noise.
IMPORTANCE_TRIALS = 4
# More classes than these, and the figures in the cells, or the names beside them, cannot be read.
ANNOTATED_CLASSES, NAMED_CLASSES = 12, 80
# Without its distribution a number is taken for log-uniform when its values spread this far.
LOG_SPREAD = 30
DPI = 150


@dataclass(frozen=True)
class Searched:
    """What a sweep searched.

    Attributes:
        distributions: name → as Optuna knows it; in a define-by-run space its branches together.
        values: trial → name → value. A trial lacks what it did not draw, or has no use for.
    """

    distributions: Mapping[str, BaseDistribution]
    values: Mapping[str, Mapping[str, Any]]


def searched_of(
    trials: Sequence[TrialRecord],
    study: optuna.Study | None = None,
    known: Mapping[str, BaseDistribution] | None = None,
) -> Searched:
    """What the trials drew, and from what.

    Args:
        study: the sweep's; without it the records' own settings are read.
        known: the space's distributions; where neither has one, the values seen must tell.
    """
    first = first_number(study) if study else 0
    frozen = {trial.number - first: trial for trial in study.get_trials(deepcopy=False)} if study else {}
    found: dict[str, list[BaseDistribution]] = {name: [kind] for name, kind in (known or {}).items()}
    drawn: dict[str, dict[str, Any]] = {}
    for trial in trials:
        own = frozen.get(trial.number)
        values = {name: trial.settings[name] for name in trial.searched if name in trial.settings}
        if own is not None and own.params:
            values = dict(own.params)
            for name, kind in own.distributions.items():
                kinds = found.setdefault(name, [])
                kinds += [kind] if kind not in kinds else []
        unused = ADAPTER_SETTINGS if trial.settings.get("method") == "full" else ()
        drawn[trial.id] = {name: value for name, value in values.items() if name not in unused}
    distributions = {}
    for name in dict.fromkeys([*found, *(name for values in drawn.values() for name in values)]):
        seen = [values[name] for values in drawn.values() if name in values]
        kind = _joined(found.get(name, [])) or _guessed(seen)
        if kind is not None:
            distributions[name] = kind
    fitting = {
        trial: {
            name: _own(value, distributions[name])
            for name, value in values.items()
            if name in distributions and _fits(value, distributions[name])
        }
        for trial, values in drawn.items()
    }
    return Searched(distributions, fitting)


def _joined(kinds: Sequence[BaseDistribution]) -> BaseDistribution | None:
    if len(kinds) < 2:
        return kinds[0] if kinds else None
    if all(isinstance(kind, CategoricalDistribution) for kind in kinds):
        return CategoricalDistribution(tuple(dict.fromkeys(c for kind in kinds for c in kind.choices)))
    if any(isinstance(kind, CategoricalDistribution) for kind in kinds):
        return None
    low, high = min(kind.low for kind in kinds), max(kind.high for kind in kinds)
    return FloatDistribution(low, high, log=low > 0 and any(kind.log for kind in kinds))


def _guessed(seen: Sequence[Any]) -> BaseDistribution | None:
    distinct = list(dict.fromkeys(seen))
    if len(distinct) < 2:
        return None
    if all(_is_number(value) for value in distinct):
        low, high = min(distinct), max(distinct)
        return FloatDistribution(low, high, log=low > 0 and high / low >= LOG_SPREAD)
    return CategoricalDistribution(tuple(distinct))


def _fits(value: Any, kind: BaseDistribution) -> bool:
    if isinstance(kind, CategoricalDistribution):
        return value in kind.choices
    return _is_number(value) and kind.low <= value <= kind.high


def _own(value: Any, kind: BaseDistribution) -> Any:
    """The choice itself: a record holds 32.0 where the space says 32."""
    return kind.choices[kind.choices.index(value)] if isinstance(kind, CategoricalDistribution) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _scored(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in trials if _is_number(trial.score)]


def learning_curves(
    trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> Figure | None:
    """Each trial's evaluations over its epochs; the mark at a curve's end says how the trial ended.

    Args:
        winner: id of the trial to bring out.
    """
    figure, axes = _figure(f"Learning curves: validation {METRIC_NAMES[metric]}")
    drawn: list[float] = []
    for trial in sorted(trials, key=lambda trial: trial.id == winner):
        values = [(e.get("epoch", e.get("rung")), e.get(metric, e.get(SCORE))) for e in trial.evaluations]
        points = [(x, y) for x, y in values if _is_number(x) and _is_number(y)]
        if not points:
            continue
        xs, ys = zip(*points, strict=True)
        drawn += ys
        won = trial.id == winner
        colour = WINNER if won else COLOURS[trial.state]
        axes.plot(
            xs, ys, color=colour, lw=2.6 if won else 1.1, alpha=1 if won else 0.75, zorder=3 if won else 2
        )
        axes.plot(xs[-1:], ys[-1:], MARKERS[trial.state], color=colour, ms=7 if won else 5, zorder=4)
    if not drawn:
        return None
    epochs = any("epoch" in evaluation for trial in trials for evaluation in trial.evaluations)
    axes.set_xlabel("epoch" if epochs else "rung")
    _score_axis(axes, metric, drawn)
    _legend(axes, [trial for trial in trials if trial.evaluations], winner)
    return figure


def history(trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None) -> Figure | None:
    """Each trial's score by its number, and the best so far; failed trials without one stand at the bottom."""
    scored = sorted(_scored(trials), key=lambda trial: trial.number)
    if not scored:
        return None
    figure, axes = _figure(f"Optimisation history: {METRIC_NAMES[metric]} of each trial")
    scores = np.array([trial.score for trial in scored], dtype=float)
    best = np.maximum.accumulate(scores) if higher_is_better(metric) else np.minimum.accumulate(scores)
    numbers = [trial.number for trial in scored]
    axes.step(numbers, best, where="post", color="#495057", lw=1.4, zorder=1)
    _dots(axes, numbers, scored, winner)
    for trial in trials:
        if trial.state == "failed" and not _is_number(trial.score):
            where = axes.get_xaxis_transform()
            axes.plot(
                trial.number, 0.02, MARKERS["failed"], color=FAILED, ms=6, transform=where, clip_on=False
            )
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _score_axis(axes, metric, scores.tolist())
    _legend(axes, trials, winner, [Line2D([], [], color="#495057", lw=1.4, label="best so far")], "stars")
    return figure


def importance_of(searched: Searched, trials: Sequence[TrialRecord], metric: Metric) -> dict[str, float]:
    """How much each searched setting decided which trials are among the best; in all 1, the largest first.

    Optuna's PED-ANOVA (Watanabe et al., arXiv 2304.10255) over a copy of the study in which every trial with
    a score is COMPLETE with its best one: Optuna itself would leave out the trials that ASHA stopped, and
    with them most of what is known of bad settings. PED-ANOVA only asks who is in the best part, and ASHA
    stops trials for not being there, so that their smaller budget does little harm. The best part is a tenth
    of the trials, but 5 where there are so many, and at most a third.

    Returns:
        Nothing with fewer than `IMPORTANCE_TRIALS` scores, or when all are equal.
    """
    scored = _scored(trials)
    if len(scored) < IMPORTANCE_TRIALS or len({trial.score for trial in scored}) < 2:
        return {}
    frozen = [
        optuna.trial.create_trial(
            value=trial.score,
            params=dict(searched.values.get(trial.id, {})),
            distributions={name: searched.distributions[name] for name in searched.values.get(trial.id, {})},
        )
        for trial in scored
    ]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        copy = optuna.create_study(direction="maximize" if higher_is_better(metric) else "minimize")
        copy.add_trials(frozen)
        part = min(1 / 3, max(0.1, 5 / len(scored)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=part)
            found = optuna.importance.get_param_importances(copy, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: float(share) for name, share in found.items()}


def importances(searched: Searched, trials: Sequence[TrialRecord], metric: Metric) -> Figure | None:
    """A bar a searched setting, as `importance_of` reckons them; None with too few trials."""
    shares = importance_of(searched, trials, metric)
    if not shares:
        return None
    figure, axes = _figure("What decided who is among the best", height=1.1 + 0.32 * len(shares))
    names = [_name(name) for name in shares][::-1]
    bars = axes.barh(range(len(names)), list(shares.values())[::-1], color=COMPLETED, height=0.62)
    axes.bar_label(bars, fmt=lambda share: f"{share:.0%}", padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), labels=names, parse_math=False)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"importance (PED-ANOVA, {len(_scored(trials))} trials)")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlim(0, max(shares.values()) * 1.12)
    return figure


def slices(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> Figure | None:
    """Score against each searched setting, one small plot each; the axis is logarithmic where the space is."""
    scored = _scored(trials)
    names = [name for name in searched.distributions if any(name in searched.values[t.id] for t in scored)]
    if not names:
        return None
    columns = 2 if len(names) == 4 else min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(4.2, 2.5 * columns), 1.0 + 2.4 * rows), layout="constrained")
    _title(figure, f"Validation {METRIC_NAMES[metric]} against each setting")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, name in zip(grid, names, strict=False):
        kind = searched.distributions[name]
        having = [trial for trial in scored if name in searched.values[trial.id]]
        values = [searched.values[trial.id][name] for trial in having]
        _plain(axes)
        if isinstance(kind, CategoricalDistribution):
            # Set apart, but the same in each drawing.
            spread = [(trial.number * 0.618 % 1 - 0.5) * 0.5 for trial in having]
            xs = [kind.choices.index(value) + by for value, by in zip(values, spread, strict=True)]
            texts = [short(show(choice), 16) for choice in kind.choices]
            steep = sum(map(len, texts)) > 26
            turn: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if steep else {}
            axes.set_xticks(range(len(texts)), labels=texts, fontsize=8, parse_math=False, **turn)
            axes.set_xlim(-0.6, len(texts) - 0.4)
        else:
            xs = values
            _number_axis(axes, kind)
        _dots(axes, xs, having, winner)
        axes.set_title(_name(name), fontsize=9.5, parse_math=False)
        _score_axis(axes, metric, [trial.score or 0.0 for trial in scored], label=axes in grid[::columns])
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    _legend(figure, scored, winner, marks="stars")
    return figure


def _number_axis(axes: Axes, kind: BaseDistribution) -> None:
    if kind.log:
        axes.set_xscale("log")
        decades = math.log10(kind.high / kind.low)
        steps = (1.0, 2.0, 5.0) if decades < 1.3 else (1.0, 3.0) if decades < 2.6 else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_minor_formatter(NullFormatter())
        edge = (kind.high / kind.low) ** 0.05
        axes.set_xlim(kind.low / edge, kind.high * edge)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=isinstance(kind, IntDistribution)))
        edge = 0.05 * (kind.high - kind.low) or 1
        axes.set_xlim(kind.low - edge, kind.high + edge)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(float(f"{value:.6g}"))))
    axes.tick_params(axis="x", labelsize=8)


def parallel_coordinates(
    searched: Searched, trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None
) -> Figure | None:
    """A line a trial through its settings to its score, which is better further up.

    Lines through one choice are spread by their score, so that equal settings do not hide each other. A line
    has a gap at a setting that its trial has no use for.
    """
    scored = _scored(trials)
    names = [name for name in searched.distributions if any(name in searched.values[t.id] for t in scored)]
    if not names:
        return None
    higher = higher_is_better(metric)
    order = sorted(scored, key=lambda trial: (trial.score or 0.0) if higher else -(trial.score or 0.0))
    places = {trial.id: (number + 0.5) / len(order) for number, trial in enumerate(order)}
    figure, axes = _figure("Parallel coordinates", width=max(6.4, 1.15 * (len(names) + 1)), height=3.9)
    axes.grid(visible=False)
    axes.set_axis_off()
    lines = np.full((len(order), len(names) + 1), np.nan)
    for column, name in enumerate(names):
        kind = searched.distributions[name]
        for row, trial in enumerate(order):
            if name in searched.values[trial.id]:
                lines[row, column] = _height(kind, searched.values[trial.id][name], places[trial.id])
        _pole(axes, column, _name(name), _ticks(kind))
    scores = np.array([trial.score for trial in order], dtype=float)
    low, high = _score_range(scores, metric)
    lines[:, -1] = np.clip((scores - low) / (high - low), 0, 1)
    ticks = [(place, _score_text(low + (high - low) * place, metric)) for place in (0, 0.25, 0.5, 0.75, 1)]
    if not higher:
        lines[:, -1] = 1 - lines[:, -1]
        ticks = [(1 - place, text) for place, text in ticks]
    _pole(axes, len(names), METRIC_NAMES[metric], ticks)
    for row, trial in enumerate(order):
        won = trial.id == winner
        # By place, not by score: most scores of a good sweep lie close together.
        colour = WINNER if won else colormaps["viridis"](0.92 * (1 - places[trial.id]))
        thin: dict[str, Any] = {"lw": 1.1, "alpha": 0.8 if len(order) < 40 else 0.55, "zorder": 2}
        style: dict[str, Any] = {"lw": 2.8, "zorder": 5} if won else thin
        axes.plot(lines[row], color=colour, marker="o", ms=5 if won else 2.5, **style)
    axes.set_xlim(-0.45, len(names) + 0.3)
    axes.set_ylim(-0.05, 1.05)
    if any(trial.id == winner for trial in order):
        _legend(axes, [], winner)
    return figure


def _height(kind: BaseDistribution, value: Any, spread: float) -> float:
    """Where a value stands on its pole, in [0, 1]."""
    if isinstance(kind, CategoricalDistribution):
        return float((kind.choices.index(value) + 0.5 + 0.5 * (spread - 0.5)) / len(kind.choices))
    if kind.high == kind.low:
        return 0.5
    if kind.log:
        return math.log(value / kind.low) / math.log(kind.high / kind.low)
    return float((value - kind.low) / (kind.high - kind.low))


def _ticks(kind: BaseDistribution) -> list[tuple[float, str]]:
    if isinstance(kind, CategoricalDistribution):
        skip = math.ceil(len(kind.choices) / 12)
        return [(_height(kind, c, 0.5), short(show(c), 14)) for c in kind.choices[::skip]]
    values = np.linspace(kind.low, kind.high, 3)
    if kind.log:
        values = np.geomspace(kind.low, kind.high, 3)
    if isinstance(kind, IntDistribution):
        values = np.unique(values.round())
    return [(_height(kind, value, 0.5), show(float(f"{value:.2g}"))) for value in values.tolist()]


def _pole(axes: Axes, x: float, name: str, ticks: Iterable[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color="#495057", lw=1, zorder=3)
    axes.text(x, 1.07, name, ha="center", va="bottom", fontsize=9, weight="bold", parse_math=False)
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.88, "pad": 0.6}
    for place, text in ticks:
        axes.plot([x - 0.02, x], [place, place], color="#495057", lw=1, zorder=3)
        axes.text(
            x - 0.04,
            place,
            text,
            ha="right",
            va="center",
            fontsize=8,
            bbox=behind,
            zorder=6,
            parse_math=False,
        )


def adapter_sizes(trials: Sequence[TrialRecord], metric: Metric, winner: str | None = None) -> Figure | None:
    """Score against rank; a bubble's area is what the trial trains. Full fine-tuning stands at the right."""
    kept: list[tuple[TrialRecord, float | None]] = []
    for trial in _scored(trials):
        rank = trial.settings.get("rank")
        if trial.settings.get("method") == "full":
            kept.append((trial, None))
        elif _is_number(rank) and rank:
            kept.append((trial, float(rank)))
    if not kept:
        return None
    figure, axes = _figure(f"Rank, {METRIC_NAMES[metric]} and size (area: trainable parameters)")
    ranks = sorted({rank for _, rank in kept if rank is not None})
    full = math.log2(ranks[-1]) + 1 if ranks else 0.0
    most = max((trial.trainable_parameters or 0 for trial, _ in kept), default=0) or 1
    for trial, rank in sorted(kept, key=lambda pair: -(pair[0].trainable_parameters or 0)):
        won = trial.id == winner
        axes.scatter(
            math.log2(rank) if rank else full,
            trial.score or 0.0,
            s=_area(trial.trainable_parameters, most),
            color=WINNER if won else COLOURS[trial.state],
            alpha=0.85 if won else 0.55,
            edgecolor="white",
            linewidth=0.8,
            zorder=4 if won else 2,
        )
    shown = ranks if len(ranks) <= 10 else [r for r in ranks if math.log2(r).is_integer()] or ranks[::5]
    places = [math.log2(rank) for rank in shown] + [full] * any(rank is None for _, rank in kept)
    texts = [show(rank) for rank in shown] + ["full"]
    axes.set_xticks(places, labels=texts[: len(places)])
    axes.set_xlim(min(places) - 0.5, max(places) + 0.5)
    axes.set_xlabel("rank")
    axes.margins(y=0.12)
    _score_axis(axes, metric, [trial.score or 0.0 for trial, _ in kept])
    counts = sorted({trial.trainable_parameters for trial, _ in kept if trial.trainable_parameters})
    ends = counts[-1:] if not counts or counts[-1] < 1.5 * counts[0] else [counts[0], counts[-1]]
    style: dict[str, Any] = {"ls": "", "marker": "o", "color": "#ced4da"}
    sizes = [
        Line2D([], [], ms=math.sqrt(_area(count, most)), label=parameters_text(count), **style)
        for count in ends
    ]
    _legend(axes, [trial for trial, _ in kept], winner, sizes, "bubbles")
    return figure


def _area(count: int | None, most: int) -> float:
    return max(14.0, 480.0 * (count or 0) / most)


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
    figure, axes = _figure("Confusion on the test split (share of the true class)", side + 2.6, side + 1.9)
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


def png(figure: Figure) -> bytes:
    """The figure as a PNG of at most 256 colours, which is a third of the size and looks the same."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    with warnings.catch_warnings():
        # Of a script that the font lacks: the names stand in the page's tables too.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas.draw()  # type: ignore[no-untyped-call]
    out = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def short(text: str, length: int) -> str:
    """A text on one line without control characters, its middle left out where it is too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) <= length:
        return line
    tail = (length - 1) // 2
    return f"{line[: length - 1 - tail]}…{line[len(line) - tail :]}"


def _name(name: str) -> str:
    return short(SHORT_NAMES.get(name, name).lstrip("_").replace("_", " "), 18)


def _figure(title: str, width: float = 6.4, height: float = 3.7) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _title(figure, title)
    _plain(axes)
    return figure, axes


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(title, fontsize=11, weight="bold", x=0.01, ha="left")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e9ecef", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def _dots(axes: Axes, xs: Sequence[float], trials: Sequence[TrialRecord], winner: str | None) -> None:
    for x, trial in zip(xs, trials, strict=True):
        won = trial.id == winner
        style = {"marker": "*", "ms": 13, "mec": "white", "zorder": 4} if won else {"ms": 5, "zorder": 3}
        colour = WINNER if won else COLOURS[trial.state]
        axes.plot([x], [trial.score], **({"marker": MARKERS[trial.state], "color": colour, "ls": ""} | style))  # type: ignore[arg-type]


def _score_range(values: Sequence[float] | np.ndarray, metric: Metric) -> tuple[float, float]:
    """Lowest and highest score to draw: a loss that has run away must not press all others flat."""
    low, high = float(np.min(values)), float(np.max(values))
    if metric == "loss":
        most = 3 * float(np.median(values))
        high = max((float(value) for value in values if value <= most), default=high)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _score_axis(axes: Axes, metric: Metric, values: Sequence[float], label: bool = True) -> None:
    if label:
        axes.set_ylabel(f"validation {METRIC_NAMES[metric]}" + (" (nats)" if metric == "loss" else ""))
    if metric != "loss":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    low, high = _score_range(values, metric)
    if high < max(values):
        edge = 0.08 * (high - low)
        axes.set_ylim(low - edge, high + edge)
        if label:
            axes.annotate(
                "some are higher ↑", (0.99, 0.98), xycoords="axes fraction", fontsize=8, ha="right", va="top"
            )


def _score_text(value: float, metric: Metric) -> str:
    return f"{value:.3g}" if metric == "loss" else f"{value:.0%}"


def _legend(
    place: Axes | Figure,
    trials: Sequence[TrialRecord],
    winner: str | None,
    more: Sequence[Line2D] = (),
    marks: str = "",
) -> None:
    """States of the trials below the figure.

    Args:
        marks: "stars" where the winner is drawn as one, "bubbles" where all trials are; else it is a line.
    """
    star: dict[str, Any] = {"marker": "*", "ms": 12, "ls": "", "mec": "white"}
    won = {"stars": star, "bubbles": {"marker": "o", "ls": ""}}.get(marks, {"marker": "o", "lw": 2.4})
    handles = [Line2D([], [], color=WINNER, label=f"winner {winner}", **won)] if winner else []
    handles += [
        Line2D(
            [],
            [],
            color=COLOURS[state],
            marker="o" if marks == "bubbles" else MARKERS[state],
            ls="",
            label=word,
        )
        for state, word in WORDS.items()
        if any(trial.state == state and trial.id != winner for trial in trials)
    ]
    figure = place if isinstance(place, Figure) else place.figure
    assert isinstance(figure, Figure)
    lines = [*handles, *more]
    # Six side by side are wider than the figure.
    columns = len(lines) if len(lines) <= 5 else math.ceil(len(lines) / 2)
    figure.legend(
        handles=lines, loc="outside lower center", ncols=max(1, columns), fontsize=8.5, frameon=False
    )
