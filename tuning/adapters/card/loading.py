"""Python lines that load an exported folder, as cards show them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from inspect import getsource

from lorasweep.training.data.long_texts import window_places
from lorasweep.training.inference.folder import ONNX_FILE
from lorasweep.training.settings import Long
from lorasweep.tuning.record.words import one_line

LOGITS = "model.eval()(**inputs).logits"


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
    quantized = ", BitsAndBytesConfig" if "quantization_config" in arguments else ""
    return (
        "from peft import AutoPeftModelForSequenceClassification\n"
        f"from transformers import AutoConfig, AutoTokenizer{quantized}\n"
        f"config = AutoConfig.from_pretrained({folder})\n"
        f"model = AutoPeftModelForSequenceClassification.from_pretrained({folder}, "
        f"id2label=config.id2label, label2id=config.label2id{more})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder})"
    )


def predicting_lines(
    text_columns: Sequence[str],
    long: Long = "cut",
    cut: tuple[int, float] | None = None,
    several: bool = False,
    config: str = "model.config",
) -> str:
    """Lines that label one text with what `loading_lines` has loaded.

    Args:
        text_columns: columns that the model was trained on, two for pairs.
        long: how long texts are read.
        cut: of two labels, the number of the one that has a threshold, and that.
        several: a text may have several labels; those whose probability is above their threshold are shown.
        config: what they call the folder's configuration.
    """
    if long == "cut":
        texts = ", ".join(_examples(text_columns))
        lines, logits = f'inputs = tokenizer({texts}, truncation=True, return_tensors="pt")\n', LOGITS
    else:
        logits = "logits"
        lines = (
            f"import numpy as np\nimport torch\n\n\n{getsource(window_places)}\n\n{_window_lines(text_columns, long)}"
            "chunks = [{name: torch.tensor([values])[:, kept] for name, values in row.items()} for kept in places]\n"
            "logits = sum(model.eval()(**chunk).logits for chunk in chunks) / len(chunks)\n"
        )
    if not several:
        return f"{lines}{torch_decision(cut, logits)}\nprint(model.config.id2label[int(chosen)])"
    return (
        f"{lines}"
        f"probabilities = {logits}[0].sigmoid().tolist()\n"
        f'thresholds = {config}.lorasweep.get("thresholds", {{}})\n'
        "labels = [model.config.id2label[i] for i in range(len(probabilities))]\n"
        "print([name for name, p in zip(labels, probabilities) if p > thresholds.get(name, 0.5)])"
    )


def merged_lines(
    name: str,
    text_columns: Sequence[str],
    long: Long = "cut",
    cut: tuple[int, float] | None = None,
    several: bool = False,
) -> str:
    """Lines that load a whole model and label a batch of texts, or one text that may be long or have several labels.

    Args:
        name: the folder's.
        text_columns: columns that the model was trained on, two for pairs.
        long: how long texts are read.
        cut: of two labels, the number of the one that has a threshold, and that.
        several: a text may have several labels.
    """
    loading = loading_lines(name, False, {})
    if several or long != "cut":
        return f"{loading}\n{predicting_lines(text_columns, long, cut, several)}"
    return (
        f"{loading}\n"
        f"inputs = tokenizer({_batch(text_columns)}, truncation=True, padding=True, "
        'return_tensors="pt")\n'
        f"{torch_decision(cut)}\n"
        "print([model.config.id2label[int(i)] for i in chosen])"
    )


def torch_decision(cut: tuple[int, float] | None, logits: str = LOGITS) -> str:
    """A line that makes `chosen`, the numbers of the labels of these logits."""
    if cut is None:
        return f"chosen = {logits}.argmax(dim=1)"
    number, threshold = cut
    positive = f"({logits}.softmax(dim=1)[:, {number}] >= {threshold!r}).int()"
    return f"chosen = {positive}" if number else f"chosen = 1 - {positive}"


def onnx_lines(
    name: str,
    text_columns: Sequence[str],
    long: Long = "cut",
    cut: tuple[int, float] | None = None,
    several: bool = False,
) -> str:
    """Lines that label texts with ONNX Runtime; arguments as in `merged_lines`."""
    folder, file = _quoted(name), _quoted(f"{name}/{ONNX_FILE}")
    imports = "from onnxruntime import InferenceSession\nfrom transformers import AutoConfig, AutoTokenizer\n"
    if several or long != "cut":
        imports = f"import numpy as np\n{imports}"
    results = _set_lines(folder) if several else _class_lines(folder, cut)
    if long != "cut":
        return (
            f"{imports}\n\n{getsource(window_places)}\n\n"
            f"session = InferenceSession({file})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({folder})\n"
            f"{_window_lines(text_columns, long)}"
            "names = [entry.name for entry in session.get_inputs()]\n"
            "chunks = [{name: np.array([row[name]])[:, kept] for name in names} for kept in places]\n"
            f"logits = sum(session.run(None, chunk)[0] for chunk in chunks) / len(chunks)\n{results}"
        )
    return (
        f"{imports}\n"
        f"session = InferenceSession({file})\n"
        f"rows = AutoTokenizer.from_pretrained({folder})("
        f'{_batch(text_columns)}, truncation=True, padding=True, return_tensors="np")\n'
        "logits = session.run(None, {entry.name: rows[entry.name] for entry in session.get_inputs()})[0]\n"
        f"{results}"
    )


def _window_lines(text_columns: Sequence[str], long: Long) -> str:
    """Lines that tokenise a text and find the places of its windows."""
    # As lists, because an empty second text alone counts as none for transformers.
    return (
        f"texts = [{_batch(text_columns)}]\n"
        "rows = tokenizer(*texts, return_special_tokens_mask=True)\n"
        "row = {name: values[0] for name, values in rows.items()}\n"
        'first = len(tokenizer(texts[0], add_special_tokens=False)["input_ids"][0])\n'
        "limit = tokenizer.model_max_length\n"
        f'places = window_places(row.pop("special_tokens_mask"), first, limit, "{long}")\n'
    )


def _batch(text_columns: Sequence[str]) -> str:
    return ", ".join(f"[{example}]" for example in _examples(text_columns))


def _examples(text_columns: Sequence[str]) -> list[str]:
    return [one_line(_quoted(f"your {column}")) for column in text_columns or ("text",)]


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
        'thresholds = config.lorasweep.get("thresholds", {})\n'
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


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
