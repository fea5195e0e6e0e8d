"""Python lines that load an exported folder, as cards show them."""

from __future__ import annotations

import json
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
    quantized = ", BitsAndBytesConfig" if "quantization_config" in arguments else ""
    return (
        "from peft import AutoPeftModelForSequenceClassification\n"
        f"from transformers import AutoConfig, AutoTokenizer{quantized}\n"
        f"config = AutoConfig.from_pretrained({folder})\n"
        f"model = AutoPeftModelForSequenceClassification.from_pretrained({folder}, "
        f"id2label=config.id2label, label2id=config.label2id{more})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder})"
    )


def merged_lines(name: str, text_columns: Sequence[str]) -> str:
    """Lines that load a whole model and label a batch of texts.

    Args:
        name: the folder's.
        text_columns: columns that the model was trained on, two for pairs.
    """
    return (
        f"{loading_lines(name, False, {})}\n"
        f"inputs = tokenizer({_examples(text_columns)}, truncation=True, padding=True, "
        'return_tensors="pt")\n'
        "print([model.config.id2label[int(i)] for i in model.eval()(**inputs).logits.argmax(dim=1)])"
    )


def onnx_lines(name: str, text_columns: Sequence[str]) -> str:
    """Lines that label a batch of texts with ONNX Runtime; arguments as in `merged_lines`."""
    folder, file = _quoted(name), _quoted(f"{name}/{ONNX_FILE}")
    return (
        "from onnxruntime import InferenceSession\n"
        "from transformers import AutoConfig, AutoTokenizer\n\n"
        f"session = InferenceSession({file})\n"
        f"rows = AutoTokenizer.from_pretrained({folder})("
        f'{_examples(text_columns)}, truncation=True, padding=True, return_tensors="np")\n'
        "logits = session.run(None, {entry.name: rows[entry.name] for entry in session.get_inputs()})[0]\n"
        f"labels = AutoConfig.from_pretrained({folder}).id2label\n"
        "print([labels[index] for index in logits.argmax(axis=1)])"
    )


def _examples(text_columns: Sequence[str]) -> str:
    return ", ".join(f"[{_quoted(f'your {column}')}]" for column in text_columns or ("text",))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
