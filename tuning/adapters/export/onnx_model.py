"""An exported folder as an ONNX model, compared with PyTorch before it appears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lorasweep.training.data.dataset import Texts
from lorasweep.training.errors import ExportError, first_line
from lorasweep.training.inference.classifier import Classifier, load_classifier, predict
from lorasweep.training.inference.folder import ONNX_FILE
from lorasweep.training.model.classifier import merge_adapter
from lorasweep.tuning.adapters.card.converted import CARD_FILE, converted_card
from lorasweep.tuning.adapters.card.loading import onnx_lines
from lorasweep.tuning.adapters.export.merged import (
    dequantized_text,
    sample_rows,
    task_words,
    write_classifier_parts,
)
from lorasweep.tuning.adapters.export.onnx_check import (
    Agreement,
    Batch,
    compare,
    onnx_logits,
    probe_batches,
    torch_logits,
)
from lorasweep.tuning.quiet import silenced

# Some models can be traced with one implementation of attention and not with the other.
ATTENTIONS = ("sdpa", "eager")
# A protobuf file holds at most 2 GiB; from here on the weights go into a file beside it.
LARGE_BYTES = 1_900_000_000
# They report operators that are missing and names that they have changed.
EXPORTERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how its predictions compare with PyTorch's.

    Attributes:
        inputs: names of the model's inputs, each int64 of shape (batch, length).
        opset: version of ONNX's operators.
        attention: the implementation of attention with which the model was traced.
        agreement: the comparison.
        size: bytes of the model's files.
        dequantized: what has become of a quantised base model, in words.
    """

    inputs: tuple[str, ...]
    opset: int
    attention: str
    agreement: Agreement
    size: int
    dequantized: str = ""

    def text(self) -> str:
        """What to tell the user, after the folder's name."""
        size = f"{self.size / 1e6:.1f} MB (opset {self.opset})"
        return f"an ONNX model of {size}; {self.agreement.text()}{self.dequantized}"


def write_onnx(folder: Path, stage: Path, name: str, rows: Texts | None = None) -> OnnxReport:
    """Write model.onnx, the tokenizer, config.json with the labels, and a card.

    An adapter is merged into its base model first. Batch and length are free; the output is `logits`, float32
    of shape (batch, classes).

    Args:
        folder: an exported adapter, or a whole model.
        stage: the folder to write into.
        name: what the folder will be called.
        rows: to compare on; made-up news if left out.

    Raises:
        ExportError: the model's code cannot be exported, or the ONNX model predicts
            otherwise than PyTorch does.
        ModelError: `folder` cannot be loaded.
    """
    classifier = load_classifier(folder, device="cpu", dequantized=True)
    rows = rows or sample_rows(classifier)
    batches = probe_batches(classifier, rows)
    # Before the merge, so that the merge is compared too.
    expected = torch_logits(classifier.model, batches)
    dequantized = dequantized_text(folder, rows, predict(classifier, rows.text, rows.pair))
    model = merge_adapter(classifier.model)
    attention, opset = _write(model, batches[2], stage / ONNX_FILE)
    agreement = compare(batches, expected, onnx_logits(stage / ONNX_FILE, batches))
    write_classifier_parts(classifier, model.config, stage)
    report = OnnxReport(
        inputs=tuple(batches[0]),
        opset=opset,
        attention=attention,
        agreement=agreement,
        size=sum(file.stat().st_size for file in stage.glob(f"{ONNX_FILE}*")),
        dequantized=dequantized,
    )
    lines = onnx_lines(name, classifier.text_columns, classifier.long, classifier.cut, classifier.multi_label)
    card = converted_card(folder, name, "onnx", _introduction(classifier, report), lines)
    (stage / CARD_FILE).write_text(card, encoding="utf-8")
    return report


def _introduction(classifier: Classifier, report: OnnxReport) -> str:
    names = ", ".join(f"`{name}`" for name in report.inputs)
    verified = report.agreement.text()
    return (
        f"An ONNX model (opset {report.opset}) that {task_words(classifier)}. "
        f"Inputs: {names}, int64 of shape (batch, length), both free, at most {classifier.max_length} tokens "
        f"long. Output: `logits`, float32 of shape (batch, {len(classifier.label_names)}), in the order of "
        f"config.json's `id2label`. {verified[0].upper()}{verified[1:]}."
    )


class _Logits(nn.Module):
    """The model with its inputs by place and its logits alone, as the exporter wants it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def _write(model: nn.Module, example: Batch, file: Path) -> tuple[str, int]:
    """Export with the first implementation of attention that works; returns it, and the version of the operators.

    Args:
        example: a batch; neither of its sizes may be 1, which the tracer takes for a constant.
    """
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    first_error: Exception | None = None
    for attention in ATTENTIONS:
        try:
            with silenced(EXPORTERS):
                model.set_attn_implementation(attention)  # type: ignore[operator]
                program = torch.onnx.export(
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
            assert program is not None
            return attention, program.model.opset_imports[""]
        except Exception as error:  # tracing runs the model's code and raises whatever that does
            first_error = first_error or error
            for part in file.parent.glob(f"{ONNX_FILE}*"):
                part.unlink()
    kind = getattr(model.config, "model_type", type(model).__name__)
    assert first_error is not None
    cause: BaseException = first_error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    raise ExportError(
        f"--format onnx: models of type {kind} cannot be exported to ONNX ({first_line(cause)}); "
        "use --format merged"
    ) from first_error
