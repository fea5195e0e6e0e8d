"""How much of a score, or of the difference of two, is noise of the rows that it was measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lorasweep.training.metrics import Metric
from lorasweep.training.scores.metrics import measure
from lorasweep.training.scores.outcomes import Outcomes

# Standard errors within which a difference counts as noise: 95 % of differences that are nothing but noise.
FACTOR = 2.0
DRAWS = 1000


def contributions(outcomes: Outcomes, metric: Metric) -> np.ndarray:
    """What each row adds to a score, with the score as its mean; float64, shape (rows,). See `Measure`."""
    return measure(outcomes, metric).contributions()


def standard_error(outcomes: Outcomes, metric: Metric) -> float:
    """Standard error of a score, for other rows of the same kind; for accuracy the binomial one."""
    return float(contributions(outcomes, metric).std() / np.sqrt(outcomes.of_rows))


def paired_error(one: Outcomes, other: Outcomes, metric: Metric) -> float:
    """Standard error of the difference of two scores on the same rows, if there is no true difference.

    What both get right or wrong cancels out, so it is often half of what the scores' own errors would give. For
    accuracy, difference by error is the root of McNemar's statistic: (b - c)² / (b + c).
    """
    apart = contributions(one, metric) - contributions(other, metric)
    return float(np.sqrt((apart**2).mean() / one.of_rows))


def paired_interval(
    one: Outcomes, other: Outcomes, metric: Metric, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """How much better or worse predictions score than others of the same rows.

    The interval is a paired bootstrap's: both scores are of the same rows, drawn with replacement.

    Returns:
        The first's score minus the other's, and the ends of the 95 % interval.
    """
    mine, theirs = measure(one, metric), measure(other, metric)
    drawn = [mine.value(rows) - theirs.value(rows) for rows in _draws(len(one.labels), draws, seed)]
    return mine.value() - theirs.value(), *_middle(drawn)


def bootstrap_intervals(
    outcomes: Outcomes, metrics: Sequence[Metric], draws: int = DRAWS, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of a split's scores, for other rows of the same kind.

    The percentile bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993): scores of as many rows,
    drawn with replacement.

    Returns:
        (low, high) of each metric that the rows define.
    """
    measures = {metric: measure(outcomes, metric) for metric in metrics}
    measures = {metric: each for metric, each in measures.items() if np.isfinite(each.value())}
    drawn: dict[str, list[float]] = {metric: [] for metric in measures}
    for rows in _draws(len(outcomes.labels), draws, seed):
        for metric, each in measures.items():
            drawn[metric].append(each.value(rows))
    return {metric: _middle(values) for metric, values in drawn.items()}


def _draws(rows: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row was drawn, float64, shape (rows,): as many draws as there are rows, with replacement."""
    random = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(random.integers(0, rows, rows), minlength=rows).astype(np.float64)


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 %. A draw may lack one of two classes, which is as if it had not been made."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
