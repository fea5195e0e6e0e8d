"""Several labels a text through everything: a CSV with a separator, sweep, resume, exports, predictions, comparison."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow_servers import loaded_model
from tiny_bases import make_tiny_base
from whole_sweeps import RUN, WORDS, check_study, lorasweep

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.scores.scorer import Scorer
from lorasweep.tuning.adapters.export.weights import load_plainly
from lorasweep.tuning.record.folder import SweepFolder

SPACE = """
rank: {choice: [2, 4]}
loss: {choice: [cross_entropy, focal]}
learning_rate: {loguniform: [5e-3, 5e-2]}
batch_size: 8
"""


def write_sets(path: Path, rows: int = 120) -> None:
    """Texts that hold words of each of their labels; some have none."""
    draw = random.Random(0)
    lines = ["text,topics"]
    for number in range(rows):
        labels = [name for name in WORDS if draw.random() < 0.4]
        words = [word for name in labels for word in draw.choices(WORDS[name].split(), k=2)]
        words += draw.choices(["new", "city", "team"], k=2)
        lines.append(f"{' '.join(words)} {number},{'; '.join(labels)}")
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_several_labels_from_csv_to_served_model(tmp_path: Path) -> None:
    write_sets(tmp_path / "rows.csv")
    make_tiny_base("bert", tmp_path / "base")
    (tmp_path / "space.yaml").write_text(SPACE)
    lorasweep(
        tmp_path, *RUN, "--label", "topics", "--label-separator", ";", "--name", "demo", "--space", "space.yaml",
        "--trials", "3", "--epochs", "3", "--compare-untuned",
    )  # fmt: skip
    folder = SweepFolder(tmp_path / "mlruns", "demo")
    records = folder.trials()
    assert [record.error for record in records] == [None] * 3
    check_study(folder, records)
    assert folder.config().training.metric == "micro_f1"
    result, data = folder.result(), Dataset.load(folder.data)
    assert result is not None
    assert result.missing == {}
    winner = result.winner
    assert winner is not None
    assert winner.thresholds is not None
    assert set(winner.interval) >= {"micro_f1", "macro_f1", "average_precision", "hamming_loss", "loss"}
    assert set(result.baselines) == {"label rates", "TF-IDF + logistic regression"}
    assert result.untuned is not None

    # Nothing is done again, and more can be added.
    lorasweep(tmp_path, "resume", "demo", "--confirm", "1x1")
    again = folder.result()
    assert again is not None
    assert again.winner is not None
    assert again.winner.test == winner.test
    assert list(again.confirmed[0].scores) == ["1"]

    lorasweep(tmp_path, "export", "demo", "--out", "best")
    best = tmp_path / "best"
    classifier = load_classifier(best, "cpu")
    assert classifier.thresholds == pytest.approx(winner.thresholds.values)
    assert json.loads((best / "config.json").read_text())["problem_type"] == "multi_label_classification"
    # The folder predicts the test split as it was recorded.
    logits = predict(classifier, data.test.text)
    scorer = Scorer(data.label_names, several=True).fixed(
        winner.thresholds.values[name] for name in data.label_names
    )
    assert scorer.score(logits, data.test.labels).more["micro_f1"] == pytest.approx(
        winner.test.more["micro_f1"]
    )
    # Plain transformers knows what the labels are.
    with quiet_loading():
        model, tokenizer = load_plainly(best, {"dtype": "float32"})
    rows = tokenizer(data.test.text, truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        np.testing.assert_allclose(model(**rows).logits.numpy(), logits, atol=1e-4)
    card = (best / "README.md").read_text()
    assert "gives texts any of 3 labels, or none" in card
    assert (
        card_lines(card, tmp_path)
        == named(classifier.predicted_sets(predict(classifier, ["your text"])), data)[0]
    )

    lorasweep(tmp_path, "predict", "--adapter", "best", "--file", "rows.csv", "--out", "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        written = [row["label"] for row in csv.DictReader(file)]
    texts = pd.read_csv(tmp_path / "rows.csv")["text"].tolist()
    expected = named(classifier.predicted_sets(predict(classifier, texts)), data)
    assert [sorted(filter(None, label.split(";"))) for label in written] == expected
    scored = json.loads(
        lorasweep(
            tmp_path, "evaluate", "--adapter", "best", "--data", "rows.csv", "--label", "topics", "--json",
        )[0]
    )  # fmt: skip
    assert scored["rows"] == 120
    assert 0 < scored["micro_f1"] <= 1

    # MLflow's registered model, served without lorasweep, gives the same.
    served = loaded_model(f"sqlite:///{tmp_path}/mlruns/mlflow.db", "models:/demo@champion")
    found = served.predict(pd.DataFrame({"text": texts[:20]}))
    assert [sorted(labels) for labels in found["label"]] == expected[:20]

    lorasweep(tmp_path, "report", "demo", "--out", "report.html")
    assert "Labels that go together" in (tmp_path / "report.html").read_text()


def named(matrix: np.ndarray, data: Dataset) -> list[list[str]]:
    return [sorted(data.label_names[number] for number in np.flatnonzero(row)) for row in matrix]


def card_lines(card: str, place: Path) -> list[str]:
    """What the card's own lines print, sorted."""
    import contextlib
    import io

    blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    printed = io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(printed), quiet_loading():
        exec("\n".join(blocks), {})
    labels: list[str] = sorted(json.loads(printed.getvalue().replace("'", '"')))
    return labels
