"""An exported folder with a threshold: whatever labels texts uses it, and the cards' lines do the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score, roc_auc_score
from tiny_adapters import TEXTS, make_folder

from lorasweep.training.errors import ModelError
from lorasweep.training.inference.classifier import Classifier, load_classifier, predict, probabilities
from lorasweep.training.inference.folder import read_folder
from lorasweep.training.scores.thresholds import decide
from lorasweep.tuning.adapters.apply.evaluate import evaluate_file, evaluation_entries
from lorasweep.tuning.adapters.apply.evaluation_text import evaluation_text
from lorasweep.tuning.adapters.apply.predict import predict_frame
from lorasweep.tuning.adapters.card.loading import merged_lines, onnx_lines, torch_decision
from lorasweep.tuning.tracking.models.serving import TextClassifier

NAMES = ("ham", "spam")
ROWS = [f"{text} {other}" for text in TEXTS for other in TEXTS]


@pytest.fixture(scope="module")
def folder(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tiny_base("bert"), tmp_path_factory.mktemp("two") / "adapter", labels=NAMES)
    # Between the rows' probabilities, so that it moves some of them.
    shares = probabilities(predict(load_classifier(folder, "cpu"), ROWS))[:, 1]
    write(folder, thresholds={"spam": float(np.quantile(shares, 0.3))}, positive="spam")
    return folder


def write(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["lorasweep"] |= entries
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Classifier:
    return load_classifier(folder, "cpu")


def test_predictions_are_by_it(classifier: Classifier) -> None:
    plain = predict_frame(replace(classifier, thresholds={}), ROWS)
    found = predict_frame(classifier, ROWS, probabilities=True)
    (value,) = classifier.thresholds.values()
    assert found["label"].tolist() == np.where(found["p_spam"] >= value, "spam", "ham").tolist()
    assert found["label"].tolist() != plain["label"].tolist()
    own = [row[f"p_{row['label']}"] for row in found.to_dict("records")]
    np.testing.assert_allclose(found["score"], own)


def test_an_evaluation_is_by_it(classifier: Classifier, folder: Path) -> None:
    labels = ["spam" if number % 3 else "ham" for number in range(len(ROWS))]
    frame = pd.DataFrame({"text": ROWS, "label": labels})
    found = evaluate_file(classifier, frame, adapter=folder)
    made = predict_frame(classifier, ROWS, probabilities=True)
    assert found.scores.accuracy == pytest.approx(accuracy_score(labels, made["label"]))
    assert np.trace(found.confusion) == round(found.scores.accuracy * len(ROWS))
    truth = [label == "spam" for label in labels]
    assert found.scores.by("auroc") == pytest.approx(roc_auc_score(truth, made["p_spam"]))
    entries = json.loads(json.dumps(evaluation_entries(found)))
    assert entries["thresholds"] == classifier.thresholds
    assert entries["auroc"] == found.scores.by("auroc")
    assert "more" not in entries
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(evaluation_text(found))
    text = console.export_text()
    for line in ("threshold  ", "  spam", "AUROC  ", "average precision  ", "MCC  ", "Brier score  "):
        assert line in text


def test_the_served_model_and_the_cards_lines_do_the_same(classifier: Classifier) -> None:
    logits = predict(classifier, ROWS)
    shares = probabilities(logits)
    for label in NAMES:
        number, value = NAMES.index(label), float(np.quantile(shares[:, NAMES.index(label)], 0.3))
        expected = decide(shares, NAMES, {label: value}).tolist()
        served = TextClassifier()
        served.labels, served.thresholds = list(NAMES), {label: value}
        assert served._decide(shares).tolist() == expected
        place: dict[str, Any] = {"inputs": {}, "model": SimpleNamespace(), "logits": logits}
        place["model"].eval = lambda: lambda: SimpleNamespace(logits=torch.from_numpy(logits).double())
        exec(torch_decision((number, value)), place)
        assert place["chosen"].tolist() == expected
        (line,) = [
            line for line in onnx_lines("x", (), cut=(number, value)).splitlines() if "chosen =" in line
        ]
        exec(line, place)
        assert place["chosen"].tolist() == expected
    assert "argmax" in merged_lines("x", ())
    assert "argmax" in onnx_lines("x", ())


@pytest.mark.parametrize(
    "broken", [{"eggs": 0.5}, {"spam": 2}, {"spam": "high"}, [0.5], {"spam": float("nan")}]
)
def test_broken_thresholds_are_one_line(folder: Path, tmp_path: Path, broken: object) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write(tmp_path, thresholds=broken)
    with pytest.raises(ModelError, match=r"thresholds in its config.json are .*; export it again"):
        read_folder(tmp_path)


def test_a_folder_of_an_older_version_has_none(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write(tmp_path, thresholds=None, positive="eggs")
    exported = read_folder(tmp_path)
    assert (exported.thresholds, exported.positive) == ({}, None)
