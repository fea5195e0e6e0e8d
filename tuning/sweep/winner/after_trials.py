"""What runs after the trials: test predictions, retraining, baselines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.errors import ModelError, TrainingError, first_line
from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import OPTIMIZER_FILE, WEIGHTS_FOLDER, TrainingState
from lorasweep.training.model.classifier import load_weights, save_weights
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.scores import predict_logits, score, score_merged
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.outcomes import OUTCOMES_FILE
from lorasweep.tuning.record.results import TestScores
from lorasweep.tuning.trials.checkpoints import open_checkpoint
from lorasweep.tuning.trials.faults import NodeError
from lorasweep.tuning.trials.node_watch import patiently
from lorasweep.tuning.trials.trial import TrialSetup, check_storage, prepare_worker, start_state


class CheckpointError(TrainingError):
    """A trial's checkpoint is gone or cannot be read."""


@dataclass(frozen=True)
class TestedClassifier:
    """A trained classifier's test logits (float32, shape (rows, classes)) and best validation score."""

    __test__ = False  # pytest would collect it by its name

    logits: np.ndarray
    validation_score: float
    seconds: float
    thresholds: tuple[float, ...] = ()
    """Of several labels a text, chosen on the validation rows."""


def predict_test(
    hyperparameters: Hyperparameters, checkpoint_path: str, data: EncodedDataset, setup: TrialSetup
) -> tuple[np.ndarray, dict[str, bytes]]:
    """Predict the test split with a trial's best checkpoint.

    Returns:
        The logits, float32, shape (rows, classes); and the checkpoint's files by name, without the optimiser's. The
        driver may have no access to the storage.

    Raises:
        CheckpointError: the checkpoint is gone or broken.
        NodeError: the storage is away, and has not come back.
    """
    state, data, files = _restored(hyperparameters, checkpoint_path, data, setup)
    return predict_logits(state.model, data.test, state.amp), files


def predict_validation(
    hyperparameters: Hyperparameters, checkpoint_path: str, data: EncodedDataset, setup: TrialSetup
) -> np.ndarray:
    """Predict the validation split with a trial's best checkpoint: logits, float32, shape (rows, classes).

    Raises:
        CheckpointError: the checkpoint is gone or broken.
        NodeError: the storage is away, and has not come back.
    """
    state, data, _ = _restored(hyperparameters, checkpoint_path, data, setup)
    return predict_logits(state.model, data.validation, state.amp)


def _restored(
    hyperparameters: Hyperparameters, checkpoint_path: str, data: EncodedDataset, setup: TrialSetup
) -> tuple[TrainingState, EncodedDataset, dict[str, bytes]]:
    """A trial's model with its best checkpoint, the rows in its base model's tokens, and the checkpoint's files."""
    device = prepare_worker(setup)
    data = data.for_base(hyperparameters.base_model)
    state = start_state(data, setup, hyperparameters, device)
    files = patiently(lambda: _load_checkpoint(state, checkpoint_path, setup.storage))
    return state, data, files


def _load_checkpoint(state: TrainingState, path: str, storage: str | None) -> dict[str, bytes]:
    """Put a checkpoint's weights into a model; the checkpoint's files as `predict_test` returns them."""
    try:
        checkpoint = open_checkpoint(path, storage)
        assert checkpoint is not None
        with checkpoint.as_directory() as folder:
            load_weights(state.model, Path(folder) / WEIGHTS_FOLDER)
            return {
                str(path.relative_to(folder)): path.read_bytes()
                for path in sorted(Path(folder).rglob("*"))
                if path.is_file() and path.name not in (OPTIMIZER_FILE, OUTCOMES_FILE)
            }
    except (ModelError, FileNotFoundError) as error:
        # Another trial would win in its place: not for a storage that is away for a while.
        check_storage(storage, first_line(error))
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise NodeError(f"checkpoint {path} cannot be read ({first_line(error)})") from error


def train_reference(
    hyperparameters: Hyperparameters,
    data: EncodedDataset,
    setup: TrialSetup,
    tell: Callable[[int], None] = lambda rung: None,
) -> TestedClassifier:
    """Train hyperparameters with the full budget and predict the test split with the best evaluation's weights.

    Args:
        tell: called with each rung.
    """
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        state, best, thresholds = _train_to_best(hyperparameters, data, setup, Path(temporary), tell)
        load_weights(state.model, Path(temporary))
        data = data.for_base(hyperparameters.base_model)
        logits = predict_logits(state.model, data.test, state.amp)
        return TestedClassifier(logits, best, state.seconds, thresholds)


def predict_fold(
    hyperparameters: Hyperparameters, rows: np.ndarray, data: EncodedDataset, setup: TrialSetup
) -> np.ndarray:
    """Train hyperparameters on the other training rows, with the full budget, and predict these.

    As in a trial, the validation split tells the best evaluation.

    Args:
        rows: numbers of training rows; int64, shape (rows,).

    Returns:
        Logits of these rows; float32, shape (rows, classes).
    """
    data = data.for_base(hyperparameters.base_model)
    others = np.setdiff1d(np.arange(len(data.train)), rows)
    fold = replace(data, train=data.train.take(others), test=data.train.take(rows))
    return train_reference(hyperparameters, fold, setup).logits


def train_again(
    hyperparameters: Hyperparameters, seed: int, data: EncodedDataset, setup: TrialSetup
) -> float:
    """Train hyperparameters with the full budget on another seed of data order and new layers.

    Returns:
        The best validation score, as in the search. The test split is not used.
    """
    seeded = setup.training_settings.model_copy(update={"seed": seed})
    setup = replace(setup, training_settings=seeded)
    return _train_to_best(hyperparameters, data, setup, None)[1]


def _train_to_best(
    hyperparameters: Hyperparameters,
    data: EncodedDataset,
    setup: TrialSetup,
    weights: Path | None,
    tell: Callable[[int], None] = lambda rung: None,
) -> tuple[TrainingState, float, tuple[float, ...]]:
    """Train to the end; returns the final state, and the best validation score with the thresholds that gave it.

    Its weights go to `weights`.
    """
    device = prepare_worker(setup)
    data = data.for_base(hyperparameters.base_model)
    state = start_state(data, setup, hyperparameters, device)
    best = Best(setup.training_settings.metric)
    scorer = setup.scorer(data.label_names)
    thresholds: tuple[float, ...] = ()
    for evaluation in fine_tune(state, data, hyperparameters, setup.training_settings, scorer=scorer):
        if best.update(evaluation.scores.by(best.metric), evaluation.rung):
            if weights is not None:
                save_weights(state.model, weights)
            thresholds = scorer.choose(evaluation.logits, data.validation.labels)
        tell(evaluation.rung)
    return state, best.score, thresholds


@dataclass(frozen=True)
class BaselineSets:
    """A baseline's predictions of several labels a text.

    Attributes:
        logits: of the test rows; float64, shape (rows, labels).
        thresholds: chosen on the validation rows.
    """

    logits: np.ndarray
    thresholds: tuple[float, ...]


def test_baselines(
    dataset: Dataset,
    rule: str | None = None,  # noqa: PT028
) -> dict[str, np.ndarray | BaselineSets]:
    """Name → log probabilities of the test rows, from models without a neural network.

    Args:
        rule: by which thresholds of several labels a text are chosen.
    """
    from lorasweep.training.scores import baselines

    if not dataset.multi_label:
        return {
            "majority class": baselines.majority_class(dataset),
            "TF-IDF + logistic regression": baselines.linear_model(dataset),
        }
    scorer, rows = Scorer(dataset.label_names, several=True, rule=rule), len(dataset.validation)

    def judged(logits: np.ndarray) -> BaselineSets:
        return BaselineSets(logits[rows:], scorer.choose(logits[:rows], dataset.validation.labels))

    return {
        "label rates": judged(baselines.label_rates(dataset)),
        "TF-IDF + logistic regression": judged(baselines.linear_models(dataset)),
    }


test_baselines.__test__ = False  # type: ignore[attr-defined]


def score_test(
    logits: np.ndarray | BaselineSets, labels: np.ndarray, scorer: Scorer | None = None
) -> TestScores:
    """The recorded scores of predictions; logits of shape (rows, classes)."""
    if isinstance(logits, BaselineSets):
        scorer, logits = (scorer or Scorer(())).fixed(logits.thresholds), logits.logits
    return TestScores(**asdict(score(logits, labels, scorer)))


def unmerged_data(dataset: Dataset, encoded: EncodedDataset) -> EncodedDataset:
    """The rows with their labels from before merging."""
    splits = dataset.splits().items()
    labels = {name: texts.original for name, texts in splits if texts.original is not None}
    return encoded.relabelled(labels, dataset.original_names)


def score_after_merging(dataset: Dataset, logits: np.ndarray, scorer: Scorer | None = None) -> TestScores:
    """Test scores of predictions of unmerged classes, mapped to the merged classes.

    Args:
        logits: float, shape (rows, unmerged classes).
    """
    return TestScores(**asdict(score_merged(logits, dataset.test.labels, dataset.merge_index(), scorer)))
