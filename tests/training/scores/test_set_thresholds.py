"""Thresholds of several labels a text: the best on the rows they are fitted to, and safe where a model is weak."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, fbeta_score

from lorasweep.training.scores.set_thresholds import best_cut, fit_thresholds, predict_sets


def predictions(rows: int, strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated logits of 20 labels, from frequent to rare, and labels drawn by them."""
    random = np.random.default_rng(seed)
    rates = np.geomspace(0.4, 0.01, 20)
    logits = np.log(rates / (1 - rates)) - strength**2 / 4 + strength * random.normal(size=(rows, 20))
    return logits.astype(np.float32), (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(
        np.uint8
    )


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_the_cut_is_the_best_of_all(beta: float) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        positive = random.random(40) < 0.3
        positive[0] = True
        scores = (positive + random.normal(size=40)).round(1)
        best = max(fbeta_score(positive, scores >= cut, beta=beta) for cut in scores)
        assert fbeta_score(positive, scores > best_cut(scores, positive, beta), beta=beta) == pytest.approx(
            best
        )
    assert best_cut(scores, np.zeros(40, dtype=bool), beta) == 0.0


def test_equal_scores_are_on_one_side() -> None:
    scores, positive = np.array([1.0, 1.0, 1.0, -1.0]), np.array([True, False, False, True])
    assert best_cut(scores, positive, 1.0) < -1


def test_beta_moves_thresholds() -> None:
    logits, labels = predictions(800, 1.5)
    low, middle, high = (fit_thresholds(logits, labels, beta).mean() for beta in (2.0, 1.0, 0.5))
    assert 0 < low < middle < high < 1


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_they_are_safe_on_weak_models(strength: float) -> None:
    """On new rows both means are better than with one half, where single thresholds ruin the one over all labels."""
    logits, labels = predictions(1000, strength)
    test, truth = predictions(4000, strength, seed=1)
    fitted = predict_sets(test, fit_thresholds(logits, labels, 1.0))
    half = predict_sets(test)

    def f1(predicted: np.ndarray, average: str) -> float:
        return float(f1_score(truth, predicted, average=average, zero_division=0))

    assert f1(fitted, "micro") > f1(half, "micro")
    assert f1(fitted, "macro") > f1(half, "macro")
    cuts = np.array([best_cut(logits[:, n], labels[:, n] > 0, 1.0) for n in range(20)])
    alone = (test > cuts).astype(np.uint8)
    assert f1(fitted, "micro") > f1(alone, "micro")


def test_a_rare_label_has_the_common_threshold() -> None:
    logits, labels = predictions(300, 2.0)
    thresholds = fit_thresholds(logits, labels, 1.0)
    few = labels.sum(axis=0) < 10
    assert few.any()
    assert thresholds[few] == pytest.approx(thresholds.min())


def test_sets_are_predicted_by_probabilities() -> None:
    logits = np.array([[0.1, -1.0], [-0.1, 2.0]])
    assert predict_sets(logits).tolist() == [[1, 0], [0, 1]]
    assert predict_sets(logits, np.array([0.6, 0.2])).tolist() == [[0, 1], [0, 1]]
    assert predict_sets(logits, np.array([1.0, 0.0])).tolist() == [[0, 1], [0, 1]]


def test_a_threshold_never_forbids_a_label() -> None:
    """The sigmoid of a cut this high is 1 in double precision."""
    logits = np.array([[41.0]] * 12 + [[39.0]] * 12 + [[-5.0]] * 12)
    labels = np.array([[1]] * 12 + [[0]] * 24, dtype=np.uint8)
    thresholds = fit_thresholds(logits, labels, 1.0)
    assert thresholds[0] < 1
    assert predict_sets(logits, thresholds)[:12].all()
