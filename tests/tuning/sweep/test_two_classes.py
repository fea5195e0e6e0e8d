"""Two classes through everything: a sweep by AUROC with a threshold, export, predict, evaluate, a served model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score
from tiny_bases import make_tiny_base
from whole_sweeps import RUN, lorasweep

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.inference.classifier import load_classifier, predict, probabilities
from lorasweep.training.scores.thresholds import best_threshold
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.tracking.models.packing import pack

SPACE = """
rank: {choice: [2, 4]}
learning_rate: {loguniform: [2e-3, 3e-2]}
batch_size: 8
"""


def write_two_classes(path: Path) -> None:
    """160 texts, a quarter of them of the class `no ham`, by words that are no sure sign."""
    draw = random.Random(0)
    lines = ["text,label"]
    for number in range(160):
        rare = number % 4 == 0
        likely, other = ("win prize", "team city") if rare else ("team city", "win prize")
        words = [draw.choice((likely if draw.random() < 0.75 else other).split()) for _ in range(5)]
        lines.append(f"{' '.join(words)} {number},{'no ham' if rare else 'ham'}")
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_two_classes_from_sweep_to_served_model(tmp_path: Path) -> None:
    import mlflow

    write_two_classes(tmp_path / "rows.csv")
    make_tiny_base("bert", tmp_path / "base")
    (tmp_path / "space.yaml").write_text(SPACE)
    sweep = [*RUN, "--name", "demo", "--space", "space.yaml", "--trials", "3", "--epochs", "3"]
    out, err = lorasweep(tmp_path, *sweep, "--metric", "auroc", "--objective", "brier", "--threshold", "f1")
    assert "no ham, for AUROC, average precision and Brier score" in out + err
    assert "the best F1 on the validation split" in out + err
    folder = SweepFolder(tmp_path / "mlruns", "demo")
    result = folder.result()
    assert result is not None
    assert result.missing == {}
    winner = result.winner
    assert winner is not None
    assert winner.thresholds is not None
    for trial in folder.trials():
        assert trial.error is None
        assert trial.score == max(evaluation.by("auroc") or 0 for evaluation in trial.evaluations)
        assert trial.judged[-1] == min(evaluation.by("brier") or 1 for evaluation in trial.evaluations)

    # Scores and threshold are those of the exported folder's own predictions.
    lorasweep(tmp_path, "export", "demo", "--out", "best")
    best, data = load_classifier(tmp_path / "best", "cpu"), Dataset.load(folder.data)
    assert data.label_names == ("ham", "no ham")
    (value,) = best.thresholds.values()
    assert best.thresholds == winner.thresholds.values == {"no ham": value}
    validation, test = (
        probabilities(predict(best, texts.text))[:, 1] for texts in (data.validation, data.test)
    )
    assert best_threshold(validation, data.validation.labels == 1, "f1") == pytest.approx(value, abs=1e-4)
    truth = data.test.labels == 1
    assert winner.test.by("auroc") == pytest.approx(roc_auc_score(truth, test), abs=1e-3)
    assert winner.test.by("average_precision") == pytest.approx(
        average_precision_score(truth, test), abs=1e-3
    )
    assert winner.test.by("brier") == pytest.approx(brier_score_loss(truth, test), abs=1e-3)
    assert winner.thresholds.test.by("f1:no ham") == pytest.approx(f1_score(truth, test >= value))
    card = (tmp_path / "best" / "README.md").read_text()
    assert "| model | split | accuracy | macro-F1 | loss | AUROC |" in card
    assert f"predicted from a probability of {value:.4g} on" in card

    # Everything that labels texts uses it.
    frame = pd.DataFrame({"text": data.test.text, "label": [data.label_names[n] for n in data.test.labels]})
    frame.to_csv(tmp_path / "test.csv", index=False)
    lorasweep(tmp_path, "predict", "--adapter", "best", "--file", "test.csv", "--out", "out.csv")
    labels = pd.read_csv(tmp_path / "out.csv")["predicted_label"].tolist()
    assert labels == np.where(test >= value, "no ham", "ham").tolist()
    out, _ = lorasweep(tmp_path, "evaluate", "--adapter", "best", "--data", "test.csv", "--json")
    entries = json.loads(out)
    assert entries["thresholds"] == {"no ham": value}
    assert entries["accuracy"] == pytest.approx(winner.thresholds.test.accuracy)
    assert entries["auroc"] == pytest.approx(winner.test.by("auroc"), abs=1e-3)
    pack(tmp_path / "best", tmp_path / "served")
    served = mlflow.pyfunc.load_model(str(tmp_path / "served"), suppress_warnings=True)
    assert served.predict(frame[["text"]])["label"].tolist() == labels
    lorasweep(tmp_path, "export", "demo", "--out", "merged", "--format", "merged")
    assert load_classifier(tmp_path / "merged", "cpu").thresholds == best.thresholds
