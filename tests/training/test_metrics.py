"""Names of metrics: what a setting takes, their words, and the task that each is for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lorasweep.training.metrics import (
    ALWAYS,
    METRICS,
    entry_of,
    higher_is_better,
    label_of,
    metric_words,
    most_of,
    recorded,
    task_of,
)
from lorasweep.training.settings import TrainingSettings


@pytest.mark.parametrize(
    "name", ["accuracy", "mcc", "top_3", "top_12", "f1:POLITICS", "f1:arts & culture", "f1:f1:x"]
)
def test_names_that_a_setting_takes(name: str) -> None:
    assert TrainingSettings(metric=name).metric == name


@pytest.mark.parametrize("name", ["f1", "top_K", "f1:", "top_0", "top_3.5", "top:3", "AUROC", "", "f2"])
def test_names_that_it_refuses(name: str) -> None:
    with pytest.raises(
        ValidationError, match=r"use accuracy, macro_f1, loss, .* such as top_3 and LABEL a label"
    ):
        TrainingSettings(metric=name)


def test_words() -> None:
    assert metric_words("macro_f1") == "macro-F1"
    assert metric_words("top_3") == "top-3 accuracy"
    assert metric_words("f1:world news") == "F1 of world news"
    assert (most_of("top_12"), most_of("accuracy"), label_of("f1:a:b"), label_of("top_3")) == (
        12,
        None,
        "a:b",
        None,
    )
    assert [name for name, entry in METRICS.items() if not entry.higher] == ["loss", "hamming_loss", "brier"]
    assert higher_is_better("f1:x")
    assert not higher_is_better("brier")
    assert entry_of("top_5").unit == "share"


def test_what_is_recorded() -> None:
    assert recorded(task_of(5)) == ("balanced_accuracy", "weighted_f1", "mcc")
    assert recorded(task_of(2))[3:] == ("auroc", "average_precision", "brier")
    assert recorded(task_of(5), ("accuracy", "top_3", "mcc"))[-2:] == ("mcc", "top_3")
    assert not set(recorded(task_of(2), ALWAYS)) & set(ALWAYS)
