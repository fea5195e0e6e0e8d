"""Standard errors and intervals of scores and of their differences, against the bootstrap and against formulas."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lorasweep.training.metrics import Metric
from lorasweep.training.scores.noise import contributions, paired_error, paired_interval, standard_error
from lorasweep.training.scores.outcomes import MOST_ROWS, Outcomes, all_outcomes, row_outcomes
from lorasweep.training.scores.scores import score

METRICS: tuple[Metric, ...] = ("accuracy", "macro_f1", "loss")


def drawn(rows: int, classes: int = 6, seed: int = 0, signal: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of unequal classes, most of them right."""
    random = np.random.default_rng(seed)
    shares = np.arange(1, classes + 1)
    labels = random.choice(classes, rows, p=shares / shares.sum())
    logits = random.normal(size=(rows, classes)).astype(np.float32)
    logits[np.arange(rows), labels] += signal
    return logits, labels


def changed(logits: np.ndarray, by: float, seed: int = 1) -> np.ndarray:
    """Nearly the same predictions."""
    noise = np.random.default_rng(seed).normal(size=logits.shape) * by
    return (logits + noise).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_the_rows_contributions_make_the_score(metric: Metric) -> None:
    logits, labels = drawn(500)
    made = contributions(row_outcomes(logits, labels), metric)
    assert made.shape == (500,)
    assert made.mean() == pytest.approx(score(logits, labels).by(metric), abs=1e-6)


def test_a_class_that_nobody_predicts_or_has_does_not_count() -> None:
    labels = np.array([0, 0, 3, 3])
    outcomes = Outcomes(labels, np.array([0, 1, 3, 0]), np.ones(4, np.float32), 4)
    assert contributions(outcomes, "macro_f1").mean() == pytest.approx(
        f1_score(labels, outcomes.predicted, average="macro")
    )


@pytest.mark.parametrize("metric", METRICS)
def test_the_standard_error_is_the_bootstraps(metric: Metric) -> None:
    """Within a tenth; the linear approximation of macro-F1 is a little low."""
    logits, labels = drawn(600)
    random = np.random.default_rng(2)
    scores = []
    for _ in range(2000):
        rows = random.integers(0, 600, 600)
        scores.append(score(logits[rows], labels[rows]).by(metric))
    assert standard_error(row_outcomes(logits, labels), metric) == pytest.approx(np.std(scores), rel=0.1)


def test_an_accuracys_error_is_the_binomial_one() -> None:
    logits, labels = drawn(400)
    share = score(logits, labels).accuracy
    error = standard_error(row_outcomes(logits, labels), "accuracy")
    assert error == pytest.approx((share * (1 - share) / 400) ** 0.5)


def test_a_pairs_error_is_mcnemars() -> None:
    """Nine rows that only the first gets right, four that only the second does: z = (9 - 4) / √13."""
    labels = np.zeros(100, dtype=int)
    first, second = np.zeros(100, dtype=int), np.zeros(100, dtype=int)
    second[:9], first[9:13] = 1, 1
    losses = np.ones(100, np.float32)
    pair = [Outcomes(labels, predicted, losses, 100) for predicted in (first, second)]
    assert 0.05 / paired_error(pair[0], pair[1], "accuracy") == pytest.approx(5 / 13**0.5)


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_tell_more_than_the_scores_alone(metric: Metric) -> None:
    logits, labels = drawn(800)
    one, other = row_outcomes(logits, labels), row_outcomes(changed(logits, 0.3), labels)
    alone = np.hypot(standard_error(one, metric), standard_error(other, metric))
    assert 0 < paired_error(one, other, metric) < 0.7 * alone


def test_of_many_rows_some_are_kept() -> None:
    """Evenly spaced, so that rows in the order of dates or labels are all there; the error is that of all rows."""
    rows = 2 * MOST_ROWS + 10
    logits, labels = drawn(rows, classes=3)
    few = row_outcomes(logits, labels)
    assert len(few.labels) == len(few.predicted) == len(few.losses) == MOST_ROWS
    assert (few.labels[-1], few.of_rows) == (labels[-3], rows)
    whole = Outcomes(labels, logits.argmax(axis=1), np.zeros(rows, np.float32), rows)
    assert standard_error(few, "accuracy") == pytest.approx(standard_error(whole, "accuracy"), rel=0.02)
    assert few.same_rows(few)
    assert not few.same_rows(row_outcomes(logits[:MOST_ROWS], labels[:MOST_ROWS]))


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_of_a_difference(metric: Metric) -> None:
    """Around it; nothing for the same predictions; as wide as its error says; the same every time."""
    logits, labels = drawn(500)
    other = changed(logits, 0.8)
    mine, theirs = all_outcomes(logits, labels), all_outcomes(other, labels)
    difference, low, high = paired_interval(mine, theirs, metric)
    expected = score(logits, labels).by(metric) - score(other, labels).by(metric)
    assert difference == pytest.approx(expected)
    assert low < difference < high
    assert paired_interval(mine, mine, metric) == (0, 0, 0)
    assert paired_interval(mine, theirs, metric) == (difference, low, high)
    error = paired_error(row_outcomes(logits, labels), row_outcomes(other, labels), metric)
    assert (high - low) / 3.92 == pytest.approx(error, rel=0.15)
