"""Predictions of a classifier, and the scores made from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from lorasweep.training.data.batches import evaluation_batches, evaluation_size
from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.data.encoding import EncodedTexts
from lorasweep.training.data.long_texts import mean_by_row
from lorasweep.training.devices import empty_cache, is_out_of_memory
from lorasweep.training.errors import TrainingError
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Metric


@dataclass(frozen=True)
class Scores:
    """Scores of one split. Accuracy and macro-F1 are in [0, 1]; the loss is the mean cross entropy in nats."""

    accuracy: float
    macro_f1: float
    loss: float

    def by(self, metric: Metric) -> float:
        """The score of this name."""
        return float(asdict(self)[metric])


@torch.inference_mode()
def predict_logits(model: nn.Module, texts: EncodedTexts | DeviceTexts, amp: AmpPolicy) -> np.ndarray:
    """Logits of every row, in order; float32, shape (rows, classes). Of a text in chunks the mean of theirs.

    The model's training mode is restored. Batches hold rows of similar length, so little is padded.

    Args:
        texts: who predicts them more than once keeps them on the device.

    Raises:
        TrainingError: memory is too small for a single row.
    """
    if not isinstance(texts, DeviceTexts):
        texts = device_texts(model, texts, amp.device)
    training = model.training
    model.eval()
    try:
        order, parts = _predict_batches(model, texts, amp)
        logits = torch.cat(parts).cpu().numpy()  # the one wait on the device
    finally:
        model.train(training)
    result = np.empty_like(logits)
    result[np.concatenate(order)] = logits
    return result if texts.documents is None else mean_by_row(result, texts.documents)


def _predict_batches(
    model: nn.Module, texts: DeviceTexts, amp: AmpPolicy
) -> tuple[list[np.ndarray], list[torch.Tensor]]:
    """Rows of each batch, and their logits on the device; if memory runs out, of half as many tokens from there."""
    order: list[np.ndarray] = []
    parts: list[torch.Tensor] = []
    pending = list(evaluation_batches(texts.lengths, *evaluation_size(amp.device)))[::-1]
    most = None
    while pending:
        rows = pending.pop()
        shape = texts.shape(rows)
        if most is not None and shape.tokens > most and shape.rows > 1:
            half = shape.rows // 2
            pending += [rows[half:], rows[:half]]
            continue
        try:
            with amp.autocast():
                parts.append(model(**texts.batch(rows)).logits.float())
            order.append(rows)
            continue
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if shape.rows == 1:
                raise TrainingError(
                    f"out of memory on {amp.device} while predicting a single row of {shape.length} tokens: lower "
                    "max_length or the number of concurrent trials"
                ) from error
        # Outside the handler: the error's frames hold the tensors that are to be freed.
        most = shape.tokens // 2
        pending.append(rows)
        empty_cache(amp.device)
    return order, parts


def score(logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Accuracy, macro-F1 over the classes that occur in `labels` or are predicted, and cross entropy.

    Args:
        logits: float, shape (rows, classes).
        labels: int, shape (rows,).
    """
    predicted = logits.argmax(axis=1)
    return Scores(
        accuracy=float((predicted == labels).mean()),
        macro_f1=macro_f1(labels, predicted),
        loss=float(row_losses(logits, labels).mean()),
    )


def score_merged(logits: np.ndarray, labels: np.ndarray, merged: np.ndarray) -> Scores:
    """Scores of predictions of finer classes, each taken as its merged class.

    For the loss, a merged class has the sum of its classes' probabilities.

    Args:
        logits: float, shape (rows, classes).
        labels: merged class of each row; int, shape (rows,).
        merged: merged class of each class; int, shape (classes,).
    """
    predicted = merged[logits.argmax(axis=1)]
    inside = np.where(merged[None, :] == labels[:, None], log_softmax(logits), -np.inf)
    return Scores(
        accuracy=float((predicted == labels).mean()),
        macro_f1=macro_f1(labels, predicted),
        loss=float(-np.logaddexp.reduce(inside, axis=1).mean()),
    )


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 of the classes that occur in `labels` or are predicted.

    Equal to scikit-learn's, which would add 50 MB to the process of every trial.

    Args:
        labels, predicted: int, shape (rows,).
    """
    classes = 1 + max(labels.max(), predicted.max())
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    # F1 = 2 · hits / (true rows + predicted rows).
    both = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float((2 * hits[both > 0] / both[both > 0]).mean())


def row_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross entropy of each row, in nats; shape (rows,).

    Args:
        logits: float, shape (rows, classes).
        labels: int, shape (rows,).
    """
    return np.asarray(-log_softmax(logits)[np.arange(len(labels)), labels])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class on a split; `rows` is its number of true rows."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


def score_classes(logits: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]) -> list[ClassScores]:
    """Precision, recall and F1 of each class, in the order of the label names."""
    from sklearn.metrics import precision_recall_fscore_support  # not in a trial's process; see `macro_f1`

    columns = precision_recall_fscore_support(
        labels, logits.argmax(axis=1), labels=range(len(label_names)), zero_division=0
    )
    return [
        ClassScores(name, float(p), float(r), float(f), int(n))
        for name, p, r, f, n in zip(label_names, *columns, strict=True)
    ]


def bootstrap_intervals(
    logits: np.ndarray, labels: np.ndarray, draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of a split's scores, for other rows of the same kind.

    The percentile bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993): scores of as many rows,
    drawn with replacement.

    Args:
        logits: float, shape (rows, classes).
        labels: int, shape (rows,).

    Returns:
        (low, high) of `accuracy`, `macro_f1` and `loss`.
    """
    random = np.random.default_rng(seed)
    rows = len(logits)
    predicted = logits.argmax(axis=1)
    losses = row_losses(logits, labels)
    scores: dict[str, list[float]] = {"accuracy": [], "macro_f1": [], "loss": []}
    for _ in range(draws):
        drawn = random.integers(0, rows, rows)
        true, answer = labels[drawn], predicted[drawn]
        scores["accuracy"].append((true == answer).mean())
        scores["macro_f1"].append(macro_f1(true, answer))
        scores["loss"].append(losses[drawn].mean())
    return {
        name: (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5)))
        for name, values in scores.items()
    }
