"""What a winner of several labels a text is scored with, and what it is compared with: each by its own thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.scores.outcomes import all_outcomes
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.set_thresholds import thresholds_by
from lorasweep.training.settings import DataSettings, Hyperparameters
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import checkpoint_thresholds, outcome_bytes, read_outcomes
from lorasweep.tuning.record.predictions import TEST_FILE, winner_class_scores, winner_logits
from lorasweep.tuning.record.results import TestScores, Thresholds, Winner
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import shown_metrics, threshold_text
from lorasweep.tuning.sweep.winner.after_trials import BaselineSets, score_test, test_baselines
from lorasweep.tuning.sweep.winner.known_start import START, Comparison
from lorasweep.tuning.sweep.winner.thresholds import set_thresholds, trial_thresholds
from lorasweep.tuning.sweep.winner.winner import write_winner

NAMES = ("arts", "health", "money")
WORDS = {"arts": "film star", "health": "doctor trial", "money": "bank shares"}


@pytest.fixture(scope="module")
def data() -> Dataset:
    random = np.random.default_rng(0)
    sets = [[name for name in NAMES if random.random() < 0.3] for _ in range(300)]
    texts = [f"{' '.join(WORDS[name] for name in labels)} new {number}" for number, labels in enumerate(sets)]
    return load_dataset(DataSettings(), 0, {"train": pd.DataFrame({"text": texts, "labels": sets})})


def logits_of(labels: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Logits that are all below 0: one half gives no label."""
    noise = np.random.default_rng(seed).normal(size=labels.shape)
    return (strength * (labels * 2.0 - 1) + noise - 6).astype(np.float32)


def scorer() -> Scorer:
    return Scorer(NAMES, several=True)


def test_outcomes_on_disk_give_the_thresholds(tmp_path: Path, data: Dataset) -> None:
    labels = data.validation.labels
    logits = logits_of(labels, 2.0, 1)
    outcomes = all_outcomes(logits, labels, NAMES).kept()
    content = outcome_bytes(outcomes, 2, logits[:5])
    expected = thresholds_by("f1", logits, labels)
    assert checkpoint_thresholds(content, None) == pytest.approx(expected, rel=1e-5)
    folder = SweepFolder(tmp_path, "demo")
    folder.outcomes("t000").parent.mkdir(parents=True)
    folder.outcomes("t000").write_bytes(content)
    found = read_outcomes(folder.outcomes("t000"), 2)
    assert found is not None
    assert found.same_rows(outcomes)
    trial = TrialRecord(id="t000", number=0, best_rung=2)
    assert trial_thresholds(folder, trial, None) == pytest.approx(tuple(expected), rel=1e-5)
    assert trial_thresholds(folder, trial.model_copy(update={"best_rung": 1}), None) is None


def test_each_side_of_a_comparison_has_its_own_thresholds(tmp_path: Path, data: Dataset) -> None:
    folder, labels = SweepFolder(tmp_path, "demo"), data.test.labels
    better, worse = logits_of(labels, 3.0, 1), logits_of(labels, 1.0, 2) - 3
    own = np.full(3, 1 / (1 + np.exp(6.0)))
    write_winner(folder.winner, {"best.json": b"{}"}, better, own)
    comparison = Comparison(folder, "micro_f1", labels, lambda trial: worse, scorer())
    comparison.store(START, worse, np.full(3, 1 / (1 + np.exp(9.0))))
    gain = comparison.gain(START)
    assert gain is not None
    expected = [
        scorer().fixed(cuts).score(logits, labels).more["micro_f1"]
        for logits, cuts in ((better, own), (worse, np.full(3, 1 / (1 + np.exp(9.0)))))
    ]
    assert gain.difference == pytest.approx(expected[0] - expected[1])
    assert min(expected) > 0.4  # by one half both would be 0


def test_a_start_without_outcomes_is_not_scored_by_the_test_rows(tmp_path: Path, data: Dataset) -> None:
    """Thresholds chosen on them would be too good."""
    folder, labels = SweepFolder(tmp_path, "demo"), data.test.labels
    logits = logits_of(labels, 3.0, 1)
    trials = [
        TrialRecord(
            id="t000", number=0, start=1, score=0.5, best_rung=1, checkpoint="gone", state="completed"
        ),
        TrialRecord(id="t001", number=1, score=0.6, best_rung=1, checkpoint="gone", state="completed"),
    ]
    winner = Winner(
        id="t001",
        score=0.6,
        hyperparameters=Hyperparameters(),
        test=TestScores(accuracy=0, macro_f1=0, loss=1),
    )
    folder.path.mkdir(parents=True)
    comparison = Comparison(folder, "micro_f1", labels, lambda trial: logits, scorer())
    start = comparison.start(trials, winner, None)
    assert start is not None
    assert start.test.more["micro_f1"] == 0  # one half gives nothing


def test_baselines_have_thresholds_of_the_validation_rows(data: Dataset) -> None:
    found = test_baselines(data, "f1")
    assert list(found) == ["label rates", "TF-IDF + logistic regression"]
    scores = {}
    for name, baseline in found.items():
        assert isinstance(baseline, BaselineSets)
        assert baseline.logits.shape == data.test.labels.shape
        assert len(baseline.thresholds) == 3
        scores[name] = score_test(baseline, data.test.labels, scorer())
    rates = (data.train.labels.sum(axis=0) + 0.5) / (len(data.train) + 1)
    shares = 1 / (1 + np.exp(-found["label rates"].logits))
    assert shares[0] == pytest.approx(rates)
    assert scores["TF-IDF + logistic regression"].more["micro_f1"] > 0.9
    assert scores["label rates"].more["micro_f1"] < 0.7
    halves = test_baselines(data, "none")["label rates"]
    assert isinstance(halves, BaselineSets)
    assert halves.thresholds == (0.5, 0.5, 0.5)


def test_stored_predictions_are_read_by_the_recorded_thresholds(tmp_path: Path, data: Dataset) -> None:
    folder, labels = SweepFolder(tmp_path, "demo"), data.test.labels
    logits = logits_of(labels, 3.0, 1)
    own = scorer().fixed(thresholds_by("f1", logits, labels))
    test = score_test(logits, labels, own)
    record = set_thresholds("f1", own, test, {})
    winner = Winner(id="t000", score=0.6, hyperparameters=Hyperparameters(), test=test, thresholds=record)
    write_winner(folder.winner, {"best.json": b"{}"}, logits, np.array(own.thresholds))
    assert (folder.winner / TEST_FILE).is_file()
    assert isinstance(winner_logits(folder, data, winner), np.ndarray)
    classes = winner_class_scores(folder, data, winner)
    assert np.mean([entry.f1 for entry in classes]) == pytest.approx(test.macro_f1)
    assert [entry.rows for entry in classes] == labels.sum(axis=0).tolist()
    moved = record.model_copy(update={"values": dict.fromkeys(NAMES, 0.99)})
    other = winner_logits(folder, data, winner.model_copy(update={"thresholds": moved}))
    assert other == "the stored predictions are not the recorded winner's, and are left out"


def test_words() -> None:
    test = TestScores(accuracy=0.5, macro_f1=0.4, loss=0.3, more={"micro_f1": 0.6, "average_precision": 0.5})
    few = Thresholds(rule="f1", values={"a": 0.25, "b": 0.5}, test=test)
    assert threshold_text(few, "micro_f1") == "0.25 for a, 0.5 for b (the best F1 on the validation split)"
    many = Thresholds(rule="none", values={str(n): n / 10 for n in range(1, 6)}, test=test)
    assert threshold_text(many, "micro_f1") == "0.1 to 0.5 for 5 labels (one half)"
    more = {
        "weighted_f1": 0.5,
        "micro_f1": 0.6,
        "subset_accuracy": 0.5,
        "hamming_loss": 0.1,
        "average_precision": 0.5,
    }
    assert shown_metrics(more, "micro_f1") == ["micro_f1", "hamming_loss", "average_precision"]
