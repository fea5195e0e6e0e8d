"""Python lines that load an exported folder, as cards show them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from lorasweep.training.inference.folder import ONNX_FILE


def loading_lines(name: str, adapter: bool, arguments: Mapping[str, object]) -> str:
    """Lines that load an adapter with plain PEFT, or a whole model with transformers.

    Args:
        name: the folder's.
        arguments: what the base model of an adapter needs beside the labels.
    """
    folder = _quoted(name)
    if not adapter:
        return (
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
            f"model = AutoModelForSequenceClassification.from_pretrained({folder})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({folder})"
        )
    more = "".join(f", {key}={value!r}" for key, value in arguments.items())
    return (
        "from peft import AutoPeftModelForSequenceClassification\n"
        "from transformers import AutoConfig, AutoTokenizer\n"
        f"config = AutoConfig.from_pretrained({folder})\n"
        f"model = AutoPeftModelForSequenceClassification.from_pretrained({folder}, "
        f"id2label=config.id2label, label2id=config.label2id{more})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder})"
    )


def predicting_lines(
    inputs: str, cut: tuple[int, float] | None, several: bool, config: str = "model.config"
) -> str:
    """Lines that label one text with what `loading_lines` has loaded.

    Args:
        inputs: the texts, as arguments of the tokenizer.
        cut: of two labels, the number of the one that has a threshold, and that.
        several: a text may have several labels; those whose probability is above their threshold are shown.
        config: what they call the folder's configuration.
    """
    lines = f'inputs = tokenizer({inputs}, truncation=True, return_tensors="pt")\n'
    if not several:
        return f"{lines}{torch_decision(cut)}\nprint(model.config.id2label[int(chosen)])"
    return (
        f"{lines}"
        "probabilities = model.eval()(**inputs).logits[0].sigmoid().tolist()\n"
        f'thresholds = {config}.lorasweep["thresholds"]\n'
        "labels = [model.config.id2label[i] for i in range(len(probabilities))]\n"
        "print([name for name, p in zip(labels, probabilities) if p > thresholds.get(name, 0.5)])"
    )


def merged_lines(
    name: str, text_columns: Sequence[str], cut: tuple[int, float] | None = None, several: bool = False
) -> str:
    """Lines that load a whole model and label a batch of texts.

    Args:
        name: the folder's.
        text_columns: columns that the model was trained on, two for pairs.
        cut: of two labels, the number of the one that has a threshold, and that.
        several: a text may have several labels.
    """
    if several:
        examples = ", ".join(_quoted(f"your {column}") for column in text_columns or ("text",))
        return f"{loading_lines(name, False, {})}\n{predicting_lines(examples, None, True)}"
    return (
        f"{loading_lines(name, False, {})}\n"
        f"inputs = tokenizer({_examples(text_columns)}, truncation=True, padding=True, "
        'return_tensors="pt")\n'
        f"{torch_decision(cut)}\n"
        "print([model.config.id2label[int(i)] for i in chosen])"
    )


def torch_decision(cut: tuple[int, float] | None) -> str:
    """A line that makes `chosen`, the numbers of the labels of `inputs`."""
    if cut is None:
        return "chosen = model.eval()(**inputs).logits.argmax(dim=1)"
    number, threshold = cut
    positive = f"(model.eval()(**inputs).logits.softmax(dim=1)[:, {number}] >= {threshold!r}).int()"
    return f"chosen = {positive}" if number else f"chosen = 1 - {positive}"


def onnx_lines(
    name: str, text_columns: Sequence[str], cut: tuple[int, float] | None = None, several: bool = False
) -> str:
    """Lines that label a batch of texts with ONNX Runtime; arguments as in `merged_lines`."""
    folder, file = _quoted(name), _quoted(f"{name}/{ONNX_FILE}")
    return (
        f"{'import numpy as np' + chr(10) if several else ''}"
        "from onnxruntime import InferenceSession\n"
        "from transformers import AutoConfig, AutoTokenizer\n\n"
        f"session = InferenceSession({file})\n"
        f"rows = AutoTokenizer.from_pretrained({folder})("
        f'{_examples(text_columns)}, truncation=True, padding=True, return_tensors="np")\n'
        "logits = session.run(None, {entry.name: rows[entry.name] for entry in session.get_inputs()})[0]\n"
        f"{_set_lines(folder) if several else _class_lines(folder, cut)}"
    )


def _class_lines(folder: str, cut: tuple[int, float] | None) -> str:
    return (
        f"labels = AutoConfig.from_pretrained({folder}).id2label\n"
        f"{_numpy_decision(cut)}\n"
        "print([labels[int(index)] for index in chosen])"
    )


def _set_lines(folder: str) -> str:
    return (
        f"config = AutoConfig.from_pretrained({folder})\n"
        "probabilities = 1 / (1 + np.exp(-logits))\n"
        'thresholds = config.lorasweep["thresholds"]\n'
        "labels = [config.id2label[i] for i in range(logits.shape[1])]\n"
        "print([[name for name, p in zip(labels, row) if p > thresholds.get(name, 0.5)] for row in probabilities])"
    )


def _numpy_decision(cut: tuple[int, float] | None) -> str:
    """A line that makes `chosen` of `logits`; a probability lies above a threshold where the logits' difference
    lies above the threshold's.
    """
    if cut is None:
        return "chosen = logits.argmax(axis=1)"
    number, threshold = cut
    margin = math.log(threshold / (1 - threshold))
    positive = f"(logits[:, {number}] - logits[:, {1 - number}] >= {margin!r}).astype(int)"
    return f"chosen = {positive}" if number else f"chosen = 1 - {positive}"


def _examples(text_columns: Sequence[str]) -> str:
    return ", ".join(f"[{_quoted(f'your {column}')}]" for column in text_columns or ("text",))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
