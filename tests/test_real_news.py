"""A short sweep on real headlines: its winner is far above chance, and its exports label alike."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from whole_sweeps import lorasweep

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.tuning.record.folder import SweepFolder

ROWS = 500


pytestmark = [pytest.mark.slow, pytest.mark.real_news]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a sweep on 1,500 headlines has run."""
    news = os.environ.get("LORASWEEP_NEWS")
    if not news:
        pytest.skip("LORASWEEP_NEWS names no folder with the real HuffPost files")
    place = tmp_path_factory.mktemp("news")
    lorasweep(
        place, "run", "--name", "news", "--data", f"{news}/huffpost_headlines_41x1000.jsonl.gz",
        "--text", "headline", "--label", "category", "--split-column", "split", "--base-model", "minilm",
        "--max-train-rows", "1500", "--trials", "3", "--epochs", "1",
    )  # fmt: skip
    return place


def test_the_winner_is_far_above_chance(place: Path) -> None:
    """Chance is 2.4 % in 41 classes."""
    status = json.loads(lorasweep(place, "status", "news", "--json")[0])
    assert status["winner"]["test"]["accuracy"] >= 0.08


def test_all_formats_give_the_same_labels(place: Path) -> None:
    """500 headlines of the test split; logits within 1e-3 pairwise."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from transformers import AutoTokenizer

    printed = {
        form: lorasweep(place, "export", "news", "--format", form, "--out", form)[0]
        for form in ("adapter", "merged", "onnx")
    }
    assert "as an ONNX model" in printed["onnx"]
    test = Dataset.load(place / "mlruns/sweeps/news/data").test
    texts = test.text[:ROWS]
    assert len(texts) == ROWS
    logits = {form: predict(load_classifier(place / form, "cpu"), texts) for form in ("adapter", "merged")}
    session = onnxruntime.InferenceSession(place / "onnx" / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(place / "onnx")
    parts = []
    for start in range(0, ROWS, 32):
        rows = tokenizer(texts[start : start + 32], truncation=True, padding=True, return_tensors="np")
        parts.append(session.run(None, {entry.name: rows[entry.name] for entry in session.get_inputs()})[0])
    logits["onnx"] = np.concatenate(parts)

    names = {
        form: list(json.loads((place / form / "config.json").read_text())["id2label"].values())
        for form in logits
    }
    assert names["adapter"] == names["merged"] == names["onnx"]
    assert len(set(logits["adapter"].argmax(axis=1))) > 5  # it has learnt to tell them apart
    for one in logits:
        for other in logits:
            np.testing.assert_allclose(logits[one], logits[other], rtol=0, atol=1e-3)
            assert (logits[one].argmax(axis=1) == logits[other].argmax(axis=1)).all()


# A coarse label beside each of the larger categories; the smaller ones have it alone.
COARSE = {
    "news": (
        "POLITICS",
        "WORLD NEWS",
        "U.S. NEWS",
        "CRIME",
        "MEDIA",
        "WEIRD NEWS",
        "ENVIRONMENT",
        "BUSINESS",
    ),
    "culture": ("ENTERTAINMENT", "COMEDY", "STYLE & BEAUTY", "CULTURE & ARTS", "SPORTS"),
    "people": ("BLACK VOICES", "QUEER VOICES", "LATINO VOICES", "WOMEN", "PARENTING", "RELIGION"),
}


def test_several_labels_are_learnt_and_not_just_their_rates(tmp_path: Path) -> None:
    """Each record has its category and a coarser label; who knows only how frequent they are is far below."""
    news = os.environ.get("LORASWEEP_NEWS")
    if not news:
        pytest.skip("LORASWEEP_NEWS names no folder with the real HuffPost files")
    rows = []
    with gzip.open(f"{news}/News_Category_Dataset_13k.json.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            coarse = [name for name, categories in COARSE.items() if row["category"] in categories]
            rows.append(json.dumps({"text": row["headline"], "labels": [row["category"], *coarse]}))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    lorasweep(
        tmp_path, "run", "--name", "sets", "--data", "rows.jsonl", "--base-model", "minilm",
        "--max-train-rows", "2000", "--trials", "2", "--epochs", "2",
    )  # fmt: skip
    result = SweepFolder(tmp_path / "mlruns", "sets").result()
    assert result is not None
    assert result.winner is not None
    assert result.winner.thresholds is not None
    assert len(set(result.winner.thresholds.values.values())) > 1
    rates, found = result.baselines["label rates"], result.winner.test
    assert found.more["average_precision"] >= 2 * rates.more["average_precision"]
    assert found.more["micro_f1"] >= rates.more["micro_f1"] + 0.1
    assert found.macro_f1 >= rates.macro_f1 + 0.05
    assert found.loss < 0.9 * rates.loss
