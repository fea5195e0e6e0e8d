"""Python lines that load an exported folder, as cards show them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from inspect import getsource

from lorasweep.training.data.long_texts import window_places
from lorasweep.training.inference.folder import ONNX_FILE
from lorasweep.training.settings import Long
from lorasweep.tuning.record.words import one_line


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


def predict_lines(text_columns: Sequence[str], long: Long) -> str:
    """Lines that label a text with a model and its tokenizer.

    Args:
        text_columns: columns that the model was trained on, two for pairs.
        long: how long texts are read.
    """
    if long == "cut":
        texts = ", ".join(_examples(text_columns))
        return (
            f'inputs = tokenizer({texts}, truncation=True, return_tensors="pt")\n'
            "print(model.config.id2label[int(model.eval()(**inputs).logits.argmax())])"
        )
    return (
        f"import numpy as np\nimport torch\n\n\n{getsource(window_places)}\n\n{_window_lines(text_columns, long)}"
        "chunks = [{name: torch.tensor([values])[:, kept] for name, values in row.items()} for kept in places]\n"
        "logits = sum(model.eval()(**chunk).logits for chunk in chunks) / len(chunks)\n"
        "print(model.config.id2label[int(logits.argmax())])"
    )


def merged_lines(name: str, text_columns: Sequence[str], long: Long = "cut") -> str:
    """Lines that load a whole model and label a batch of texts, or one text that may be long.

    Args:
        name: the folder's.
        text_columns: columns that the model was trained on, two for pairs.
        long: how long texts are read.
    """
    loading = loading_lines(name, False, {})
    if long != "cut":
        return f"{loading}\n{predict_lines(text_columns, long)}"
    return (
        f"{loading}\n"
        f"inputs = tokenizer({_batch(text_columns)}, truncation=True, padding=True, "
        'return_tensors="pt")\n'
        "print([model.config.id2label[int(i)] for i in model.eval()(**inputs).logits.argmax(dim=1)])"
    )


def onnx_lines(name: str, text_columns: Sequence[str], long: Long = "cut") -> str:
    """Lines that label texts with ONNX Runtime; arguments as in `merged_lines`."""
    folder, file = _quoted(name), _quoted(f"{name}/{ONNX_FILE}")
    imports = "from onnxruntime import InferenceSession\nfrom transformers import AutoConfig, AutoTokenizer\n"
    results = (
        f"labels = AutoConfig.from_pretrained({folder}).id2label\n"
        "print([labels[index] for index in logits.argmax(axis=1)])"
    )
    if long != "cut":
        return (
            f"import numpy as np\n{imports}\n\n{getsource(window_places)}\n\n"
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


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
