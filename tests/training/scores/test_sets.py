"""Scores of several labels a text: equal to scikit-learn's, with errors that are the bootstrap's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from lorasweep.training.metrics import ALWAYS, recorded
from lorasweep.training.scores.metrics import measure
from lorasweep.training.scores.noise import (
    bootstrap_intervals,
    contributions,
    paired_error,
    paired_interval,
    standard_error,
)
from lorasweep.training.scores.outcomes import Outcomes, all_outcomes
from lorasweep.training.scores.scorer import Scorer

NAMES = ("arts", "health", "politics", "rare")
METRICS = (
    "accuracy",
    "macro_f1",
    "loss",
    "micro_f1",
    "weighted_f1",
    "hamming_loss",
    "average_precision",
    "f1:arts",
)


def predictions(rows: int = 300, seed: int = 0, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits with ties and labels, some rows without any; of a model that has learnt something."""
    random = np.random.default_rng(seed)
    labels = (random.random((rows, 4)) < [0.5, 0.3, 0.2, 0.05]).astype(np.uint8)
    logits = (labels * 2.0 - 1 + noise * random.normal(size=labels.shape)).round(1).astype(np.float32)
    return logits, labels


def outcomes(seed: int = 0, noise: float = 1.5) -> Outcomes:
    return all_outcomes(*predictions(seed=seed, noise=noise), NAMES)


def test_scores_equal_scikit_learns() -> None:
    logits, labels = predictions()
    predicted = logits > 0
    shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
    scores = Scorer(NAMES, rule="none").score(logits, labels)
    assert scores.accuracy == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-12)
    assert scores.macro_f1 == pytest.approx(reference.f1_score(labels, predicted, average="macro"), abs=1e-12)
    assert scores.loss == pytest.approx(
        np.mean([reference.log_loss(labels[:, n], shares[:, n]) for n in range(4)]), abs=1e-9
    )
    expected = {
        "subset_accuracy": scores.accuracy,
        "micro_f1": reference.f1_score(labels, predicted, average="micro"),
        "weighted_f1": reference.f1_score(labels, predicted, average="weighted"),
        "hamming_loss": reference.hamming_loss(labels, predicted),
        "average_precision": reference.average_precision_score(labels, logits, average="macro"),
    }
    assert scores.more == pytest.approx(expected, abs=1e-12)
    assert set(scores.more) == set(recorded("several labels"))
    one = measure(outcomes(), "f1:health").value()
    assert one == pytest.approx(reference.f1_score(labels[:, 1], predicted[:, 1]), abs=1e-12)


def test_named_thresholds_give_other_sets() -> None:
    logits, labels = predictions()
    predicted = (logits > [0.5, -0.5, 0, 1]).astype(np.uint8)
    found = measure(all_outcomes(logits, labels, NAMES, predicted=predicted), "micro_f1").value()
    assert found == pytest.approx(reference.f1_score(labels, predicted, average="micro"), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_standard_error_is_the_bootstraps(metric: str) -> None:
    own = outcomes()
    assert contributions(own, metric).mean() == pytest.approx(measure(own, metric).value(), abs=1e-9)
    ends = bootstrap_intervals(own, [metric], draws=300)[metric]
    assert standard_error(own, metric) == pytest.approx((ends[1] - ends[0]) / (2 * 1.96), rel=0.25)


def test_a_pairs_error_and_interval_agree() -> None:
    one, other = outcomes(noise=1.4), outcomes(noise=1.5)
    for metric in ("micro_f1", "average_precision", "hamming_loss"):
        difference, low, high = paired_interval(one, other, metric, draws=300)
        assert difference == pytest.approx(measure(one, metric).value() - measure(other, metric).value())
        assert paired_error(one, other, metric) == pytest.approx((high - low) / (2 * 1.96), rel=0.3)


def test_a_label_without_rows_does_not_count() -> None:
    logits, labels = predictions()
    labels[:, 3], logits[:, 3] = 0, -3
    scores = Scorer(NAMES, rule="none").score(logits, labels)
    three = Scorer(NAMES[:3], rule="none").score(logits[:, :3], labels[:, :3])
    assert scores.macro_f1 == pytest.approx(three.macro_f1)
    assert scores.more["average_precision"] == pytest.approx(three.more["average_precision"])


def test_sets_of_two_labels_are_no_two_classes() -> None:
    logits, labels = predictions()
    more = Scorer(NAMES[:2], rule="none").score(logits[:, :2], labels[:, :2]).more
    assert "auroc" not in more
    assert "micro_f1" in more
    assert Scorer(()).metrics == ALWAYS


def test_kept_outcomes_are_small_and_give_the_same_scores() -> None:
    whole = outcomes()
    kept = whole.kept()
    assert (kept.labels.dtype, kept.predicted.dtype) == (np.uint8, np.uint8)
    for metric in METRICS:
        assert measure(kept, metric).value() == pytest.approx(measure(whole, metric).value(), abs=1e-6)
    assert whole.take(np.arange(5)).labels.shape == (5, 4)
