"""An ONNX model's predictions in ONNX Runtime beside PyTorch's, on batches of many sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lorasweep.training.data.batches import evaluation_batches
from lorasweep.training.data.dataset import Texts
from lorasweep.training.data.encoding import encode_texts
from lorasweep.training.errors import ExportError, first_line
from lorasweep.training.inference.classifier import Classifier
from lorasweep.tuning.adapters.export.verify import fp32_tolerance, largest_difference

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BATCH_ROWS = 16

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Agreement:
    """What a comparison covered, and its outcome.

    Attributes:
        rows: texts that were compared.
        smallest, largest: (rows, tokens) of the smallest and the largest batch.
        max_difference: largest absolute difference of a logit.
    """

    rows: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    max_difference: float

    def text(self) -> str:
        """What to tell the user."""
        smallest, largest = (f"{rows} × {tokens}" for rows, tokens in (self.smallest, self.largest))
        return (
            f"in ONNX Runtime it predicts what PyTorch does on {self.rows} rows in batches of {smallest} to "
            f"{largest} tokens (the same labels; logits differ by at most {self.max_difference:.2g} in fp32)"
        )


def probe_batches(classifier: Classifier, rows: Texts) -> list[Batch]:
    """Model inputs of many sizes, as `EncodedTexts.batch` makes them.

    First a short text alone, then one as long as the model reads, then both in one batch with much padding: a
    model that was exported with a fixed size fails on these. Then all rows, by length.
    """
    texts = [text or "-" for text in rows.text]
    words = " ".join(texts[:64]).split()
    short = " ".join(words[:2])
    # A token is at least a character long, so this is cut off.
    long = " ".join(words * (1 + classifier.max_length // len(words)))
    paired = len(classifier.text_columns) == 2
    pair = list(rows.pair or [""] * len(texts))
    encoded = encode_texts(
        classifier.tokenizer, [short, long, *texts], ["", long, *pair] if paired else None, None,
        classifier.max_length,
    )  # fmt: skip
    config: Any = classifier.model.config
    # A tokenizer may give types that its model has no embeddings for.
    typed = getattr(config, "type_vocab_size", 0) > 0
    sizes = [np.array(numbers) for numbers in ([0], [1], [0, 1, 0])]
    sizes += [numbers + 2 for numbers in evaluation_batches(encoded.lengths[2:], max_rows=BATCH_ROWS)]
    batches = [encoded.batch(numbers, torch.device("cpu")) for numbers in sizes]
    return [
        {name: batch[name] for name in INPUTS if name in batch and (typed or name != INPUTS[2])}
        for batch in batches
    ]


def torch_logits(model: nn.Module, batches: Sequence[Batch]) -> list[np.ndarray]:
    """PyTorch's logits of each batch; float32, shape (rows, classes)."""
    with torch.inference_mode():
        return [np.asarray(model(**batch).logits.float().numpy()) for batch in batches]


def onnx_logits(file: Path, batches: Sequence[Batch]) -> list[np.ndarray]:
    """ONNX Runtime's logits of each batch; float32, shape (rows, classes).

    Raises:
        ExportError: it cannot run the model.
    """
    # By name, so that types are checked alike where the package is not installed.
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return [
            np.asarray(session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})[0])
            for batch in batches
        ]
    except Exception as error:  # its own exceptions have no common base
        raise ExportError(
            f"ONNX Runtime cannot run the exported model ({first_line(error)}); nothing was exported, "
            "use --format merged"
        ) from error


def compare(batches: Sequence[Batch], expected: list[np.ndarray], actual: list[np.ndarray]) -> Agreement:
    """Compare both sides' logits of the same batches.

    Raises:
        ExportError: a logit differs by more than `fp32_tolerance` of all expected logits, or a label does whose
            lead over the second is larger than that.
    """
    tolerance = fp32_tolerance(np.concatenate(expected))
    problem = "the ONNX model does not predict what PyTorch does"
    worst = max(
        largest_difference(ours, theirs, tolerance, problem, "Use --format merged")
        for ours, theirs in zip(expected, actual, strict=True)
    )
    sizes = ((len(ids), ids.shape[1]) for ids in (batch["input_ids"] for batch in batches))
    shapes = sorted(sizes, key=lambda size: size[0] * size[1])
    return Agreement(sum(map(len, expected)), shapes[0], shapes[-1], worst)
