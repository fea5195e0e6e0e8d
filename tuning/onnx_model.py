"""An exported folder as an ONNX model, checked against PyTorch before it is shown."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training.encoding import EncodedTexts, encode_texts
from training.errors import ExportError
from training.exported import MODEL_CONFIG, OWN_ENTRY, first_line, quiet_loading
from training.inference import Classifier, load_classifier
from training.sample import sample_news
from tuning.export import staged_folder
from tuning.onnx_card import onnx_card
from tuning.saved_model import CARD_FILE

MODEL_FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Largest difference of a logit that counts as none; measured differences lie below 2e-4.
TOLERANCE = 1e-3
# Some models' code can be traced with one way of computing attention and not with the other.
ATTENTIONS = ("sdpa", "eager")
# A protobuf file holds at most 2 GiB; from here on the weights go into a file beside it.
LARGE_BYTES = 1_900_000_000
# Batches to compare: rows of short texts, of long ones, and of both with much padding.
BATCH_SIZES = (1, 7)


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how its predictions compare with PyTorch's.

    Attributes:
        out: the folder.
        inputs: names of the model's inputs, each int64 of shape (batch, length).
        opset: version of ONNX's operators.
        attention: how attention was computed when the model was traced.
        batches: (rows, tokens) of each batch that was compared.
        max_difference: largest absolute difference of a logit.
        size: bytes of the model's files.
    """

    out: Path
    inputs: tuple[str, ...]
    opset: int
    attention: str
    batches: tuple[tuple[int, int], ...]
    max_difference: float
    size: int

    def text(self) -> str:
        """What to tell the user."""
        shapes = ", ".join(f"{rows} × {tokens}" for rows, tokens in self.batches)
        return (
            f"{self.out}: an ONNX model of {self.size / 1e6:.1f} MB (opset {self.opset}); in ONNX Runtime it "
            f"predicts what PyTorch does on batches of {shapes} rows × tokens (logits differ by at most "
            f"{self.max_difference:.2g})"
        )


def export_onnx(folder: Path, out: Path, texts: Sequence[str] | None = None) -> OnnxReport:
    """Write model.onnx, the tokenizer, config.json with the labels, and a card.

    An adapter is merged into its base model first. Batch and length are free; the output is `logits`, float32
    of shape (batch, classes).

    Args:
        folder: an exported adapter, or a whole model.
        out: must not exist; it appears whole or not at all.
        texts: rows to compare on, short and long; made-up news if left out.

    Raises:
        ExportError: packages are missing, the model's code cannot be exported, the ONNX model predicts
            otherwise, or `out` exists or cannot be written.
        ModelError: `folder` cannot be loaded.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"ONNX needs packages that are not installed ({', '.join(missing)}): pip install 'lorasweep[onnx]'"
        )
    with staged_folder(out) as stage:
        classifier = load_classifier(folder, device="cpu")
        batches = _probe_batches(classifier, texts or _news())
        # By the model as it is in use: so the merging is compared too.
        expected = [_logits(classifier.model, batch) for batch in batches]
        model = _merged(classifier.model)
        attention = _write(model, batches[-1], stage / MODEL_FILE, folder)
        opset, found = _run(stage / MODEL_FILE, batches)
        difference = _compare(expected, found, folder)
        with quiet_loading():
            classifier.tokenizer.save_pretrained(stage)
        _write_config(model, classifier, stage)
        report = OnnxReport(
            out=out,
            inputs=tuple(batches[0]),
            opset=opset,
            attention=attention,
            batches=tuple(tuple(batch["input_ids"].shape) for batch in batches),
            max_difference=difference,
            size=sum(file.stat().st_size for file in stage.glob(f"{MODEL_FILE}*")),
        )
        card = onnx_card(folder, classifier, report.inputs, report.text().partition("; ")[2])
        (stage / CARD_FILE).write_text(card, encoding="utf-8")
    return report


def _news() -> list[str]:
    frame = sample_news(60)
    return [f"{head} {more}" for head, more in zip(frame["headline"], frame["short_description"], strict=True)]


def _probe_batches(classifier: Classifier, texts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    """Inputs of different sizes, as `EncodedTexts.batch` makes them; the last has padding and many rows."""
    long = [" ".join(texts[(i + j) % len(texts)] for j in range(64)) for i in range(max(BATCH_SIZES))]
    short = [" ".join(text.split()[:3]) or text for text in texts[: max(BATCH_SIZES)]]
    rows = [*short, *long, *texts]
    paired = len(classifier.text_columns) == 2
    pair = [other if i % 2 else "" for i, other in enumerate([*short[::-1], *long, *texts[::-1]])]
    encoded = encode_texts(classifier.tokenizer, rows, pair if paired else None, None, classifier.max_length)
    config: Any = classifier.model.config
    typed = getattr(config, "type_vocab_size", 0) > 0  # 0: tokenizers give types that the model does not read

    def batch(numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        inputs = encoded.batch(np.array(numbers), torch.device("cpu"))
        return {n: inputs[n] for n in INPUTS if n in inputs and (typed or n != INPUTS[2])}

    order = _by_length(encoded)
    shapes = [order[:1], order[-1:], order[:7], order[-7:], [order[0], *order[-2:], *order[1:5]]]
    return [batch(numbers) for numbers in shapes]


def _by_length(encoded: EncodedTexts) -> list[int]:
    order: list[int] = np.argsort(encoded.lengths, kind="stable").tolist()
    return order


def _logits(model: nn.Module, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(model(**inputs).logits.float().numpy())


def _merged(model: nn.Module) -> nn.Module:
    from peft import PeftModel

    return model.merge_and_unload().eval() if isinstance(model, PeftModel) else model


class _Logits(nn.Module):
    """The model with its inputs by place and its logits alone, as the exporter wants it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def _write(model: nn.Module, example: dict[str, torch.Tensor], file: Path, folder: Path) -> str:
    """Export with the first way of computing attention that works, and say which."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    first_error: Exception | None = None
    for attention in ATTENTIONS:
        try:
            with _quiet_export():
                model.set_attn_implementation(attention)  # type: ignore[operator]
                torch.onnx.export(
                    _Logits(model, tuple(example)).eval(),
                    tuple(example.values()),
                    file,
                    input_names=list(example),
                    output_names=["logits"],
                    dynamo=True,
                    dynamic_shapes=(tuple({0: "batch", 1: "length"} for _ in example),),
                    external_data=size > LARGE_BYTES,
                    verbose=False,
                )
            return attention
        except Exception as error:  # tracing runs the model's code and raises whatever that does
            first_error = first_error or error
            for part in file.parent.glob(f"{MODEL_FILE}*"):
                part.unlink()
    kind = getattr(model.config, "model_type", type(model).__name__)
    cause: BaseException | None = first_error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    assert cause is not None
    raise ExportError(
        f"{folder}: models of type {kind} cannot be exported to ONNX ({first_line(cause)}); "
        "use the adapter with PyTorch"
    ) from first_error


def _run(file: Path, batches: list[dict[str, torch.Tensor]]) -> tuple[int, list[np.ndarray]]:
    """The opset, and ONNX Runtime's logits of each batch."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        found = [
            np.asarray(session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})[0])
            for batch in batches
        ]
    except Exception as error:  # its own exceptions have no common base
        raise ExportError(
            f"ONNX Runtime cannot run the exported model ({first_line(error)}); nothing was exported"
        ) from error
    versions = [entry.version for entry in onnx.load(file, load_external_data=False).opset_import if not entry.domain]
    return versions[0], found


def _compare(expected: list[np.ndarray], found: list[np.ndarray], folder: Path) -> float:
    """The largest difference of a logit; raises `ExportError` where it is more than `TOLERANCE`."""
    worst = 0.0
    for ours, theirs in zip(expected, found, strict=True):
        difference = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("nan")
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{folder}: the ONNX model does not predict what PyTorch does: logits of a batch of shape "
                f"{ours.shape} differ by up to {difference:.3g} ({TOLERANCE:g} is allowed); nothing was exported"
            )
        worst = max(worst, difference)
    return worst


def _write_config(model: nn.Module, classifier: Classifier, stage: Path) -> None:
    import json

    config: Any = model.config
    config.save_pretrained(stage)
    entries = json.loads((stage / MODEL_CONFIG).read_text(encoding="utf-8"))
    names = classifier.label_names
    entries |= {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        OWN_ENTRY: {"text_columns": list(classifier.text_columns), "max_length": classifier.max_length},
    }
    (stage / MODEL_CONFIG).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Inside it the exporter does not tell of operators that are not there and names it has changed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
