"""What runs beside the trials: a look at the test split, settings trained again, baselines."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.encoding import EncodedDataset
from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import WEIGHTS_FOLDER, TrainingState
from lorasweep.training.model.classifier import load_weights, save_weights
from lorasweep.training.scores.scores import predict_logits, score
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.folder import TestScores
from lorasweep.tuning.trials.checkpoints import open_checkpoint
from lorasweep.tuning.trials.cluster import Resources
from lorasweep.tuning.trials.trial import TrialSetup, prepare_worker, start_state


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


def run_alone(address: str | None, resources: Resources, function: Any, *arguments: Any) -> Any:
    """Run a function when the trials are done, and wait for what it returns.

    On this machine in this process: it has imported what a new worker would spend seconds on. In a cluster where
    the resources are; this process may run where they are not.

    Args:
        address: of the cluster, or None.
    """
    import ray

    if address is not None:
        return ray.get(run_remote(resources, function, *arguments))
    return function(*(ray.get(given) if isinstance(given, ray.ObjectRef) else given for given in arguments))


def predict_test(
    hyperparameters: Hyperparameters, checkpoint_path: str, data: EncodedDataset, setup: TrialSetup
) -> tuple[np.ndarray, dict[str, bytes]]:
    """Predict the test split with a trial's best checkpoint.

    Returns:
        The logits, float32 of shape (rows, classes), and the checkpoint's files by name, the optimiser's left
        out: the driver may be on another machine than the storage.
    """
    device = prepare_worker(setup)
    state = start_state(data, setup, hyperparameters, device)
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


def train_reference(
    hyperparameters: Hyperparameters, data: EncodedDataset, setup: TrialSetup
) -> TestedClassifier:
    """Train settings with the full budget, outside the search, and predict the test split with their best."""
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        state, best = _train_to_best(hyperparameters, data, setup, Path(temporary))
        load_weights(state.model, Path(temporary))
        return TestedClassifier(predict_logits(state.model, data.test, state.amp), best, state.seconds)


def train_again(
    hyperparameters: Hyperparameters, seed: int, data: EncodedDataset, setup: TrialSetup
) -> float:
    """Train settings with the full budget on another seed of data order and new layers.

    Returns:
        The best validation score, as the trials of the search are scored. The test split is not touched.
    """
    setup = replace(setup, settings=setup.settings.model_copy(update={"seed": seed}))
    return _train_to_best(hyperparameters, data, setup, None)[1]


def _train_to_best(
    hyperparameters: Hyperparameters, data: EncodedDataset, setup: TrialSetup, keep: Path | None
) -> tuple[TrainingState, float]:
    """Train to the end; the state there, and the best validation score, whose weights go into `keep`."""
    device = prepare_worker(setup)
    state = start_state(data, setup, hyperparameters, device)
    best = Best(setup.settings.metric)
    for evaluation in fine_tune(state, data, hyperparameters, setup.settings):
        if best.update(evaluation.scores.by(best.metric), evaluation.rung) and keep is not None:
            save_weights(state.model, keep)
    return state, best.score


def test_baselines(dataset: Dataset) -> dict[str, np.ndarray]:
    """Name → log probabilities of the test rows by what needs no neural network."""
    from lorasweep.training.scores.baselines import linear_model, majority_class

    return {
        "majority class": majority_class(dataset),
        "TF-IDF + logistic regression": linear_model(dataset),
    }


test_baselines.__test__ = False  # type: ignore[attr-defined]


def score_test(logits: np.ndarray, labels: np.ndarray) -> TestScores:
    """The three scores that are recorded of a test."""
    return TestScores(**asdict(score(logits, labels)))
