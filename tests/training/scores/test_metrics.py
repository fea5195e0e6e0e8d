"""Every metric against scikit-learn, its error against the bootstrap, its influence against a row taken twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as reference

from lorasweep.training.metrics import ALWAYS, F1_OF, METRICS, SETS, TOP, recorded
from lorasweep.training.scores.metrics import COUNTED, ORDERED, measure
from lorasweep.training.scores.noise import (
    bootstrap_intervals,
    contributions,
    paired_error,
    paired_interval,
    standard_error,
)
from lorasweep.training.scores.outcomes import MOST_ROWS, Outcomes, all_outcomes, log_softmax
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.scores import score_merged

NAMES = ("sport", "WORLD & politics", "arts", "never")
MANY = ("accuracy", "macro_f1", "loss", "balanced_accuracy", "weighted_f1", "mcc", "top_2", "f1:arts")
TWO = (*MANY[:6], "f1:no", "auroc", "average_precision", "brier")


def drawn(rows: int, classes: int, seed: int = 0, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Logits and unequal classes; many rows have equal logits, and the last of more than two classes has none."""
    random = np.random.default_rng(seed)
    known = classes - (classes > 2)
    shares = np.arange(1, known + 1)
    labels = random.choice(known, rows, p=shares / shares.sum())
    logits = random.normal(size=(rows, classes)).astype(np.float32)
    logits[np.arange(rows), labels] += 1
    return (logits.round(1) if ties else logits), labels


def two(rows: int = 400, seed: int = 0, ties: bool = True, positive: int = 1) -> Outcomes:
    logits, labels = drawn(rows, 2, seed, ties)
    return all_outcomes(logits, labels, ("yes", "no"), positive)


def more(rows: int = 400, seed: int = 0, ties: bool = True) -> Outcomes:
    return all_outcomes(*drawn(rows, 4, seed, ties), NAMES)


def of_scikit_learn(metric: str, logits: np.ndarray, labels: np.ndarray, positive: int) -> float:
    guess, shares = logits.argmax(axis=1), np.exp(log_softmax(logits))
    hot = labels == positive
    # As a float64 difference, which has the ties of the float32 logits.
    margins = logits[:, positive].astype(float) - logits[:, 1 - positive]
    functions: dict[str, Callable[[], float]] = {
        "accuracy": lambda: reference.accuracy_score(labels, guess),
        "macro_f1": lambda: reference.f1_score(labels, guess, average="macro"),
        "loss": lambda: reference.log_loss(labels, shares, labels=range(logits.shape[1])),
        "balanced_accuracy": lambda: reference.balanced_accuracy_score(labels, guess),
        "weighted_f1": lambda: reference.f1_score(labels, guess, average="weighted"),
        "mcc": lambda: reference.matthews_corrcoef(labels, guess),
        "top_2": lambda: reference.top_k_accuracy_score(labels, logits, k=2, labels=range(logits.shape[1])),
        "f1:arts": lambda: reference.f1_score(labels == 2, guess == 2),
        "f1:no": lambda: reference.f1_score(labels == 1, guess == 1),
        "auroc": lambda: reference.roc_auc_score(hot, margins),
        "average_precision": lambda: reference.average_precision_score(hot, margins),
        "brier": lambda: reference.brier_score_loss(hot, shares[:, positive]),
    }
    return float(functions[metric]())


@pytest.mark.filterwarnings("ignore:.*y_pred contains classes not in y_true")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metric", MANY)
def test_of_more_classes_each_is_scikit_learns(metric: str, seed: int) -> None:
    logits, labels = drawn(300, 4, seed)
    found = measure(all_outcomes(logits, labels, NAMES), metric).value()
    assert found == pytest.approx(of_scikit_learn(metric, logits, labels, 1), abs=1e-9)


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("metric", TWO)
def test_of_two_classes_each_is_scikit_learns(metric: str, positive: int) -> None:
    """Ties, among them many rows of one score, count as in scikit-learn."""
    logits, labels = drawn(300, 2, ties=True)
    logits[:100] = logits[0]
    outcomes = all_outcomes(logits, labels, ("yes", "no"), positive)
    expected = of_scikit_learn(metric, logits, labels, positive)
    assert measure(outcomes, metric).value() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("outcomes", "metric"), [(more(), m) for m in MANY] + [(two(), m) for m in TWO])
def test_weights_are_rows_taken_more_often(outcomes: Outcomes, metric: str) -> None:
    """So a bootstrap counts rows, and sorts no more."""
    rows = np.random.default_rng(1).integers(0, 400, 400)
    weights = np.bincount(rows, minlength=400).astype(float)
    drawn_rows = outcomes.take(rows)
    assert measure(outcomes, metric).value(weights) == pytest.approx(
        measure(drawn_rows, metric).value(), abs=1e-12
    )


@pytest.mark.parametrize(("outcomes", "metric"), [(more(60), m) for m in MANY] + [(two(60), m) for m in TWO])
def test_a_rows_influence_is_the_scores_derivative_by_its_weight(outcomes: Outcomes, metric: str) -> None:
    made, value = contributions(outcomes, metric), measure(outcomes, metric)
    assert made.mean() == pytest.approx(value.value(), abs=1e-12)
    step = 1e-4
    for row in range(60):
        weights = np.ones((2, 60))
        weights[:, row] += step, -step
        slope = (value.value(weights[0]) - value.value(weights[1])) / (2 * step)
        assert (made[row] - value.value()) / 60 == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize(
    ("outcomes", "metric"),
    [(more(500, ties=False), m) for m in MANY] + [(two(500, ties=False), m) for m in TWO],
)
def test_the_standard_error_is_the_bootstraps(outcomes: Outcomes, metric: str) -> None:
    value, random = measure(outcomes, metric), np.random.default_rng(2)
    counts = (np.bincount(random.integers(0, 500, 500), minlength=500) for _ in range(1500))
    spread = np.std([value.value(count.astype(float)) for count in counts])
    # As they are kept with a checkpoint.
    assert standard_error(outcomes.kept(), metric) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("metric", ["mcc", "auroc", "average_precision", "brier"])
def test_a_pairs_error_and_interval_agree(metric: str) -> None:
    one = two(500, ties=False)
    logits, labels = drawn(500, 2, ties=False)
    noise = np.random.default_rng(3).normal(size=logits.shape) * 0.4
    other = all_outcomes((logits + noise).astype(np.float32), labels, ("yes", "no"))
    difference, low, high = paired_interval(one, other, metric, draws=600)
    assert difference == measure(one, metric).value() - measure(other, metric).value()
    assert low < difference < high
    assert (high - low) / 3.92 == pytest.approx(paired_error(one, other, metric), rel=0.15)


def test_an_aurocs_error_is_delongs() -> None:
    """The variance of the shares that each positive row beats, and by which each other row is beaten."""
    outcomes = two(200)
    assert outcomes.margins is not None
    high, low = (outcomes.margins[outcomes.labels == kind] for kind in (1, 0))
    wins = (high[:, None] > low[None, :]) + 0.5 * (high[:, None] == low[None, :])
    variance = wins.mean(axis=1).var() / len(high) + wins.mean(axis=0).var() / len(low)
    assert standard_error(outcomes, "auroc") == pytest.approx(variance**0.5)


def test_rows_of_one_class_alone_have_no_order() -> None:
    outcomes = all_outcomes(drawn(20, 2)[0], np.zeros(20, int), ("yes", "no"))
    assert np.isnan(measure(outcomes, "auroc").value())
    assert np.isnan(measure(outcomes, "average_precision").value())
    scores = Scorer.of(("yes", "no")).scores(outcomes)
    assert scores.more.keys() == {"balanced_accuracy", "weighted_f1", "mcc", "brier"}
    assert "auroc" not in bootstrap_intervals(outcomes, ("accuracy", "auroc"), draws=20)
    # Draws that lack one of two classes are left out.
    rare = all_outcomes(drawn(20, 2)[0], np.eye(20, dtype=int)[0], ("yes", "no"))
    assert np.isfinite(bootstrap_intervals(rare, ("auroc",), draws=50)["auroc"]).all()


def test_a_scorer_makes_all_of_the_task_and_those_that_are_named() -> None:
    logits, labels = drawn(100, 4)
    scores = Scorer.of(NAMES, None, "top_3", "f1:WORLD & politics", "loss").score(logits, labels)
    assert list(scores.more) == ["balanced_accuracy", "weighted_f1", "mcc", "top_3", "f1:WORLD & politics"]
    assert scores.by("loss") == scores.loss
    assert scores.by("top_3") == scores.more["top_3"]
    both = Scorer.of(("yes", "no"), "yes").score(*drawn(100, 2))
    assert list(both.more) == [*list(scores.more)[:3], "auroc", "average_precision", "brier"]
    other = Scorer.of(("yes", "no")).score(*drawn(100, 2))
    assert other.by("auroc") == pytest.approx(both.by("auroc"))  # of two classes it is symmetric
    assert other.by("average_precision") != both.by("average_precision")
    with pytest.raises(KeyError):
        other.by("top_3")


def test_merged_classes_are_scored_by_their_summed_probabilities() -> None:
    logits, labels = drawn(200, 4)
    merged = np.array([0, 1, 0, 1])
    found = score_merged(logits, merged[labels], merged, Scorer.of(("a", "b")))
    shares = np.exp(log_softmax(logits))[:, merged == 1].sum(axis=1)
    assert found.by("auroc") == pytest.approx(reference.roc_auc_score(merged[labels], shares), abs=1e-9)
    assert found.by("brier") == pytest.approx(reference.brier_score_loss(merged[labels], shares), abs=1e-9)


def test_every_entry_has_a_function() -> None:
    plain = {name for name, entry in METRICS.items() if entry.tasks != SETS} - {TOP, F1_OF}
    for metric in plain - {"auroc", "average_precision", "brier"}:
        assert np.isfinite(measure(more(), metric).value())
    for metric in plain:
        assert np.isfinite(measure(two(), metric).value())
    assert plain | {"micro_f1"} >= set(COUNTED) | set(ORDERED) | set(ALWAYS)
    assert set(recorded("two classes")) | set(ALWAYS) == plain


def test_kept_rows_have_all_that_the_metrics_need() -> None:
    outcomes = two(MOST_ROWS + 100).kept()
    assert outcomes.margins is not None
    assert outcomes.ranks is not None
    assert len(outcomes.margins) == len(outcomes.ranks) == MOST_ROWS
    assert (outcomes.margins.dtype, outcomes.ranks.dtype) == (np.float32, np.int32)
    older = replace(outcomes, margins=None, ranks=None)
    with pytest.raises(ValueError, match="no margins"):
        standard_error(older, "auroc")
    with pytest.raises(ValueError, match="no ranks"):
        standard_error(older, "top_3")
