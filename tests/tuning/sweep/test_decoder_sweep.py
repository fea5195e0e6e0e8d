"""A decoder through everything: sweep, export, plain PEFT, a served model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_bases import make_tiny_base
from whole_sweeps import RUN, check_study, lorasweep, write_rows

from lorasweep.training.inference.classifier import load_classifier, predict, probabilities
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.tuning.adapters.export.weights import load_plainly
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.tracking.models.packing import pack

SPACE = """
rank: {choice: [2, 4]}
target_modules: {choice: [query-value, attention, feed-forward, all-linear]}
learning_rate: {loguniform: [5e-3, 5e-2]}
batch_size: 8
"""
TEXTS = ["markets rally", "film star wins award album", "vaccine", "doctors trial new city bank shares"]


@pytest.mark.slow
def test_a_decoder_from_sweep_to_served_model(tmp_path: Path) -> None:
    import mlflow

    write_rows(tmp_path / "rows.csv")
    make_tiny_base("qwen3", tmp_path / "base", bare=True)
    (tmp_path / "space.yaml").write_text(SPACE)
    sweep = [
        *RUN,
        "--name",
        "demo",
        "--space",
        "space.yaml",
        "--trials",
        "3",
        "--epochs",
        "2",
        "--no-baselines",
    ]
    lorasweep(tmp_path, *sweep)
    folder = SweepFolder(tmp_path / "mlruns", "demo")
    records = folder.trials()
    assert [record.error for record in records] == [None] * 3
    check_study(folder, records)

    lorasweep(tmp_path, "export", "demo", "--out", "best")
    best = tmp_path / "best"
    expected = predict(load_classifier(best, "cpu"), TEXTS)
    with quiet_loading():
        model, tokenizer = load_plainly(best, {"pad_token_id": 3, "dtype": "float32"})
    rows = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        np.testing.assert_allclose(model(**rows).logits.numpy(), expected, atol=1e-4)
    pack(best, tmp_path / "served")
    served = mlflow.pyfunc.load_model(str(tmp_path / "served"), suppress_warnings=True)
    found = served.predict(pd.DataFrame({"text": TEXTS}))
    np.testing.assert_allclose(found["score"].to_numpy(float), probabilities(expected).max(axis=1), atol=1e-4)
