"""An adapter, a whole model and an ONNX model of one trial label real headlines alike."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_quickstart import lorasweep

from lorasweep.training.data.load import Dataset
from lorasweep.training.inference.classifier import load_classifier, predict

ROWS = 500


@pytest.mark.slow
@pytest.mark.real_news
def test_all_formats_give_the_same_labels(tmp_path: Path) -> None:
    """500 headlines of the test split, with MiniLM after a short sweep; logits within 1e-3 pairwise."""
    news = os.environ.get("LORASWEEP_NEWS")
    if not news:
        pytest.skip("LORASWEEP_NEWS names no folder with the real HuffPost files")
    onnxruntime = pytest.importorskip("onnxruntime")
    from transformers import AutoTokenizer

    lorasweep(
        tmp_path, "run", "--name", "news", "--data", f"{news}/huffpost_headlines_41x1000.jsonl.gz",
        "--text", "headline", "--label", "category", "--split-column", "split", "--base-model", "minilm",
        "--max-train-rows", "1500", "--trials", "2", "--epochs", "1",
    )  # fmt: skip
    told = {
        form: lorasweep(tmp_path, "export", "news", "--format", form, "--out", form)
        for form in ("adapter", "merged", "onnx")
    }
    assert "as an ONNX model" in told["onnx"]
    test = Dataset.load(tmp_path / "mlruns/sweeps/news/data").test
    texts = test.text[:ROWS]
    assert len(texts) == ROWS
    logits = {form: predict(load_classifier(tmp_path / form, "cpu"), texts) for form in ("adapter", "merged")}
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "onnx")
    parts = []
    for start in range(0, ROWS, 32):
        rows = tokenizer(texts[start : start + 32], truncation=True, padding=True, return_tensors="np")
        parts.append(session.run(None, {entry.name: rows[entry.name] for entry in session.get_inputs()})[0])
    logits["onnx"] = np.concatenate(parts)

    names = {
        form: list(json.loads((tmp_path / form / "config.json").read_text())["id2label"].values())
        for form in logits
    }
    assert names["adapter"] == names["merged"] == names["onnx"]
    assert len(set(logits["adapter"].argmax(axis=1))) > 5  # it has learnt to tell them apart
    for one in logits:
        for other in logits:
            np.testing.assert_allclose(logits[one], logits[other], rtol=0, atol=1e-3)
            assert (logits[one].argmax(axis=1) == logits[other].argmax(axis=1)).all()
