"""The winner's one look at the test split, and the untuned settings trained beside it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from training.encoding import EncodedDataset
from training.evaluate import higher_is_better, predict_logits, score
from training.fine_tune import fine_tune
from training.model import load_weights, save_weights
from training.settings import Hyperparameters
from training.state import WEIGHTS_FOLDER
from tuning.cluster import Resources
from tuning.record import TestScores
from tuning.trainable import TrialSetup, open_checkpoint, prepare_worker, start_state

TEST_FILE = "test.safetensors"


@dataclass(frozen=True)
class TestedClassifier:
    """A trained classifier's test logits (float32, shape (rows, classes)), and its validation score."""

    __test__ = False

    logits: np.ndarray
    validation_score: float
    seconds: float


def run_remote(resources: Resources, function: Any, *arguments: Any) -> Any:
    """Run a function in a Ray worker that has what a trial has; arguments may be object references."""
    import ray

    options = {"num_cpus": resources.cpus_per_trial, "num_gpus": resources.gpus_per_trial}
    return ray.remote(function).options(max_retries=2, **options).remote(*arguments)


def predict_test(
    settings: dict[str, Any], checkpoint_path: str, data: EncodedDataset, setup: TrialSetup
) -> tuple[np.ndarray, dict[str, bytes]]:
    """Predict the test split with a trial's best checkpoint.

    Returns:
        The logits, float32 of shape (rows, classes), and the checkpoint's files by name, the optimiser's left
        out: the driver may be on another machine than the storage.
    """
    device = prepare_worker(setup)
    state = start_state(data, setup, Hyperparameters(**settings), device)
    checkpoint = open_checkpoint(checkpoint_path, setup.storage)
    assert checkpoint is not None
    with checkpoint.as_directory() as folder:
        load_weights(state.model, Path(folder) / WEIGHTS_FOLDER)
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and path.name not in ("optimizer.safetensors",)
        }
    return predict_logits(state.model, data.test, state.amp), files


def train_reference(settings: dict[str, Any], data: EncodedDataset, setup: TrialSetup) -> TestedClassifier:
    """Train settings with the full budget, outside the search, and predict the test split with their best."""
    device = prepare_worker(setup)
    hyperparameters = Hyperparameters(**settings)
    state = start_state(data, setup, hyperparameters, device)
    sign = 1.0 if higher_is_better(setup.settings.metric) else -1.0
    best = -float("inf")
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        for evaluation in fine_tune(state, data, hyperparameters, setup.settings):
            validation = evaluation.scores.by(setup.settings.metric)
            if sign * validation >= best:
                best = sign * validation
                save_weights(state.model, Path(temporary))
        load_weights(state.model, Path(temporary))
        return TestedClassifier(predict_logits(state.model, data.test, state.amp), sign * best, state.seconds)


def keep_winner(folder: Path, files: dict[str, bytes], logits: np.ndarray) -> None:
    """Keep the winner's weights and its test logits in the sweep's folder, apart from Ray's."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    save_file({"logits": logits}, folder / TEST_FILE)


def score_test(logits: np.ndarray, labels: np.ndarray) -> TestScores:
    """The three scores that are recorded of a test."""
    scores = score(logits, labels)
    return TestScores(accuracy=scores.accuracy, macro_f1=scores.macro_f1, loss=scores.loss)
