"""Predictions of a classifier, and the scores made from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lorasweep.training.data.batches import evaluation_batches, evaluation_size
from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.data.long_texts import mean_by_row
from lorasweep.training.devices import empty_cache, is_out_of_memory
from lorasweep.training.errors import TrainingError
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.outcomes import log_softmax
from lorasweep.training.scores.scorer import Scorer, Scores


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


def score(logits: np.ndarray, labels: np.ndarray, scorer: Scorer | None = None) -> Scores:
    """The scores of predictions.

    Args:
        logits: float, shape (rows, classes).
        labels: int, shape (rows,).
        scorer: names the metrics; accuracy, macro-F1 and loss if None.
    """
    return (scorer or Scorer(())).score(logits, labels)


def score_merged(
    logits: np.ndarray, labels: np.ndarray, merged: np.ndarray, scorer: Scorer | None = None
) -> Scores:
    """Scores of predictions of finer classes, each taken as its merged class.

    For all that is made of probabilities, a merged class has the sum of its classes' probabilities.

    Args:
        logits: float, shape (rows, classes).
        labels: merged class of each row; int, shape (rows,).
        merged: merged class of each class; int, shape (classes,).
        scorer: as of `score`.
    """
    shares = log_softmax(logits)
    summed = np.stack(
        [np.logaddexp.reduce(shares[:, merged == label], axis=1) for label in range(1 + merged.max())], axis=1
    )
    scorer = scorer or Scorer(())
    return scorer.scores(scorer.outcomes(summed, labels, merged[logits.argmax(axis=1)]))


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class on a split; `rows` is its number of true rows."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


def score_classes(
    predicted: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]
) -> list[ClassScores]:
    """Precision, recall and F1 of each class, in the order of the label names.

    Args:
        predicted, labels: numbers of labels; int, shape (rows,).
    """
    from sklearn.metrics import precision_recall_fscore_support  # not in a trial's process; see `metrics.py`

    columns = precision_recall_fscore_support(
        labels, predicted, labels=range(len(label_names)), zero_division=0
    )
    return [
        ClassScores(name, float(p), float(r), float(f), int(n))
        for name, p, r, f, n in zip(label_names, *columns, strict=True)
    ]


def score_labels(
    predicted: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]
) -> list[ClassScores]:
    """Precision, recall and F1 of each label, where a text may have several, in the order of the label names.

    Args:
        predicted, labels: uint8, shape (rows, labels).
    """
    hits, given, having = (
        values.sum(axis=0, dtype=np.int64) for values in (predicted & labels, predicted, labels)
    )
    return [
        ClassScores(name, float(h / max(g, 1)), float(h / max(n, 1)), float(2 * h / max(g + n, 1)), int(n))
        for name, h, g, n in zip(label_names, hits, given, having, strict=True)
    ]
