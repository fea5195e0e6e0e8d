"""Scores of any metric as text."""

from __future__ import annotations

import math

import pytest

from lorasweep.training.metrics import metric_key
from lorasweep.tuning.record.gains import gain_texts
from lorasweep.tuning.record.results import SweepResult, TestScores
from lorasweep.tuning.record.trial_records import EvaluationRecord
from lorasweep.tuning.record.words import amount_text, score_text, scores_text, shown_metrics

TWO = {
    "balanced_accuracy": 0.8,
    "weighted_f1": 0.8,
    "mcc": 0.61,
    "auroc": 0.912,
    "average_precision": 0.7,
    "brier": 0.1,
}


@pytest.mark.parametrize(
    ("metric", "score", "amount"),
    [
        ("accuracy", "81.2%", "81.2 points"),
        ("f1:ham", "81.2%", "81.2 points"),
        ("loss", "0.8123", "0.8123 nats"),
        ("mcc", "0.8123", "0.8123"),
        ("brier", "0.8123", "0.8123"),
    ],
)
def test_units(metric: str, score: str, amount: str) -> None:
    assert (score_text(0.8123, metric), amount_text(0.8123, metric)) == (score, amount)
    assert score_text(math.nan, metric) == score_text(None, metric) == "-"


def test_what_tables_show() -> None:
    assert shown_metrics({"balanced_accuracy": 0.8, "mcc": 0.6}, "accuracy") == []
    assert shown_metrics({"balanced_accuracy": 0.8, "top_3": 0.9}, "top_3") == ["top_3"]
    assert shown_metrics(TWO, "weighted_f1") == ["weighted_f1", "mcc", "auroc", "average_precision", "brier"]
    test = TestScores(accuracy=0.9, macro_f1=0.8, loss=0.3, more=TWO)
    text = scores_text(test, {"auroc": (0.9, 0.92)}, shown_metrics(TWO, "loss"))
    assert text == (
        "accuracy 90.0%, MCC 0.6100, AUROC 0.9120 (0.9000 to 0.9200), average precision 0.7000, Brier score 0.1000"
    )


@pytest.mark.parametrize(
    ("metric", "score", "said"),
    [
        ("mcc", 0.5, "Tuning adds +0.1100 of MCC to the untuned default."),
        ("auroc", 0.9, "Tuning adds +0.0120 of AUROC to the untuned default."),
        ("weighted_f1", 0.79, "Tuning adds +1.0 points of weighted F1 to the untuned default."),
        ("brier", 0.3, "Tuning lowers the Brier score of the untuned default by 0.2000."),
        (
            "brier",
            0.05,
            "Tuning found nothing better than the untuned default: +0.0500 of Brier score on the test",
        ),
    ],
)
def test_what_tuning_adds_by_any_metric(metric: str, score: float, said: str) -> None:
    scores = {"accuracy": 0.5, "macro_f1": 0.5, "loss": 1.0}
    entries = {"id": "t000", "score": 0.5, "settings": {}, "seconds": 1.0}
    result = SweepResult.model_validate(
        {
            "state": "finished",
            "metric": metric,
            "winner": {**entries, "test": scores | TWO},
            "untuned": {**entries, "test": scores | TWO | {metric: score}},
        }
    )
    assert [text[: len(said)] for text in gain_texts(result)] == [said]


def test_names_that_mlflow_takes() -> None:
    assert [metric_key(name) for name in ("top_3", "f1:arts & culture")] == ["top_3", "f1_arts _ culture"]


def test_an_evaluation_of_an_older_version_has_three_scores() -> None:
    entry = EvaluationRecord.model_validate({"rung": 1, "accuracy": 0.5, "macro_f1": 0.4, "loss": 1.0})
    assert (entry.by("accuracy"), entry.by("loss"), entry.by("auroc")) == (0.5, 1.0, None)
    later = EvaluationRecord.model_validate({**entry.model_dump(), "more": {"auroc": 0.7}})
    assert later.by("auroc") == 0.7
