"""The winner's threshold and its test scores with it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from lorasweep.training.scores.outcomes import log_softmax
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.results import Winner
from lorasweep.tuning.record.words import threshold_text
from lorasweep.tuning.sweep.winner.thresholds import sweep_scorer, thresholds

NAMES = ("ham", "spam")
RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random(300) < 0.2).astype(int)
LOGITS = np.stack([np.zeros(300), RANDOM.normal(size=300) + 2 * LABELS - 2], axis=1).astype(np.float32)


def config(rule: object, **training: object) -> SweepConfig:
    return SweepConfig.model_validate({"name": "demo", "training": training, "choice": {"threshold": rule}})


def shares(column: int) -> np.ndarray:
    return np.asarray(np.exp(log_softmax(LOGITS))[:, column])


def test_it_is_chosen_on_the_validation_split() -> None:
    scorer = sweep_scorer(config("f1", metric="auroc"), NAMES)
    assert scorer.named == ("auroc", "f1:spam")
    found = thresholds("f1", scorer, LOGITS[:150], LABELS[:150], lambda: (LOGITS[150:], LABELS[150:]))
    (value,) = found.values.values()
    assert list(found.values) == ["spam"]
    assert 0.1 < value < 0.5
    predicted = shares(1) >= value
    truth = LABELS == 1
    assert f1_score(truth[150:], predicted[150:]) > f1_score(truth[150:], shares(1)[150:] >= 0.5)
    assert found.test.by("f1:spam") == pytest.approx(f1_score(truth[:150], predicted[:150]))
    assert found.test.accuracy == pytest.approx(accuracy_score(truth[:150], predicted[:150]))
    assert found.test.by("auroc") == pytest.approx(roc_auc_score(truth[:150], shares(1)[:150]))
    low, high = found.interval["f1:spam"]
    assert low < found.test.by("f1:spam") < high
    assert scorer.score(LOGITS[:150], LABELS[:150]).by("f1:spam") != found.test.by("f1:spam")


def test_a_number_needs_no_predictions() -> None:
    def none() -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError

    scorer = sweep_scorer(config(0.7, positive="ham"), NAMES)
    found = thresholds("0.7", scorer, LOGITS, LABELS, none)
    assert found.values == {"ham": 0.7}
    assert found.test.accuracy == pytest.approx(accuracy_score(LABELS == 0, shares(0) >= 0.7))
    text = threshold_text(found, "accuracy")
    assert text.startswith("0.7 for ham (0.7, as given): accuracy ")
    assert "F1 of ham" in text
    assert "AUROC" not in text  # that is the same with any threshold


def test_a_record_with_it_comes_back_and_an_older_one_has_none() -> None:
    scorer = sweep_scorer(config("mcc"), NAMES)
    found = thresholds("mcc", scorer, LOGITS, LABELS, lambda: (LOGITS, LABELS))
    assert "best MCC on the validation split" in threshold_text(found, "accuracy")
    winner = Winner.model_validate(
        {"id": "t001", "score": 0.9, "settings": {}, "test": {"accuracy": 0.9, "macro_f1": 0.8, "loss": 0.3}}
    )
    assert winner.thresholds is None
    assert np.isnan(winner.test.by("auroc"))
    full = winner.model_copy(update={"thresholds": found, "test": found.test})
    assert Winner.model_validate_json(full.model_dump_json()) == full
    assert full.model_dump()["test"]["auroc"] == found.test.by("auroc")  # beside accuracy
