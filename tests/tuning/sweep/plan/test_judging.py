"""Metrics, positive classes and thresholds that the data do not have are refused in the plan, in one line."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lorasweep.training.data.dataset import Dataset, Texts
from lorasweep.training.errors import DataError, SettingError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.sweep.plan.judging import check_judging

SPAM = np.array([0, 1, 0, 1])
NEWS = np.array([0, 1, 2, 1])


def data(names: tuple[str, ...], labels: np.ndarray) -> Dataset:
    split = Texts([f"text {number}" for number in range(len(labels))], None, labels)
    return Dataset(split, split, split, names, ("text",), "label", "rows.csv", "0", len(labels), {}, {})


def check(
    labels: np.ndarray, names: tuple[str, ...], test: np.ndarray | None = None, **settings: Any
) -> None:
    parts: dict[str, dict[str, Any]] = {"training": {}, "search": {}, "choice": {}}
    places = {"objective": "search", "threshold": "choice"}
    for name, value in settings.items():
        parts[places.get(name, "training")][name] = value
    config = SweepConfig.model_validate({"name": "demo", **parts})
    splits = {"validation": labels, "test": labels if test is None else test}
    check_judging(config, data(names, labels), splits)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"metric": "auroc", "objective": "brier", "positive": "ham", "threshold": "f1"},
        {"metric": "f1:spam", "objective": "mcc"},
        {"threshold": 0.25},
    ],
)
def test_two_classes_have_these(settings: dict[str, Any]) -> None:
    check(SPAM, ("ham", "spam"), **settings)


def test_more_classes_have_these() -> None:
    check(NEWS, ("arts", "money", "sport"), metric="top_2", objective="f1:sport")


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        (
            {"metric": "auroc"},
            "training.metric",
            "AUROC is for two classes, and the data have 3; use another",
        ),
        ({"objective": "brier"}, "search.objective", "Brier score is for two classes, and the data have 3"),
        (
            {"metric": "f1:film"},
            "training.metric",
            "no class has this name; the labels are 'arts', 'money', 'sport'",
        ),
        ({"metric": "top_3"}, "training.metric", "of 3 classes, every row would count as right; use top_2"),
        (
            {"positive": "arts"},
            "training.positive",
            "goes with two classes, and the data have 3; leave it out",
        ),
        (
            {"threshold": "mcc"},
            "choice.threshold",
            "goes with two classes, and the data have 3; leave it out",
        ),
    ],
)
def test_more_classes_do_not_have_these(settings: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        check(NEWS, ("arts", "money", "sport"), **settings)
    assert ".".join(caught.value.place) == place
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "test", "said"),
    [
        (
            {"positive": "Spam"},
            SPAM,
            "training.positive: 'Spam': no class has this name; the labels are 'ham', 'spam'",
        ),
        ({"metric": "top_2"}, SPAM, "every row would count as right; use another, such as auroc"),
        (
            {"metric": "auroc"},
            SPAM[:1],
            "the test split has no row of 'spam'; use another metric, or add rows",
        ),
        (
            {"objective": "f1:spam"},
            SPAM[:1],
            "the test split has no row of 'spam'; use another metric, or add rows",
        ),
    ],
)
def test_two_classes_do_not_have_these(settings: dict[str, Any], test: np.ndarray, said: str) -> None:
    with pytest.raises(SettingError, match=re.escape(said)):
        check(SPAM, ("ham", "spam"), test, **settings)


def test_a_split_of_sets_without_any_label_is_refused() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=np.uint8)
    config = SweepConfig.model_validate({"name": "demo"})
    dataset = replace(data(("arts", "money"), labels), multi_label=True)
    check_judging(config, dataset, {"validation": labels, "test": labels[2:]})
    with pytest.raises(
        DataError, match="the test split has no text with a label, and cannot be scored; add rows"
    ):
        check_judging(config, dataset, {"validation": labels, "test": labels[3:]})
