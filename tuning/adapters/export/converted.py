"""An exported folder made into another format: the whole model, and what all formats have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from torch import nn

from lorasweep.training.data.load import Texts
from lorasweep.training.inference.classifier import Classifier, load_classifier, predict
from lorasweep.training.inference.folder import MODEL_CONFIG, ONNX_FILE, OWN_ENTRY, quiet_loading, read_json
from lorasweep.training.model.base_model import label_config
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.sample_news.sample import sample_news
from lorasweep.tuning.adapters.card.card import loading_lines
from lorasweep.tuning.adapters.export.verify import FP32_TOLERANCE, verify_export
from lorasweep.tuning.adapters.export.weights import CARD_FILE
from lorasweep.tuning.record.words import escape

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

# Made-up rows to compare on, for want of others.
SAMPLE_ROWS = 60
# The section of the source's card that shows how to load it, which no longer holds.
LOADING = "Load it"
TEMPLATE = """\
---
{{ metadata }}
---

# {{ title }}

{{ introduction }} It comes from a hyperparameter sweep of lorasweep.

## Run it

```python
{{ lines }}
```
{{ rest }}"""


def sample_rows(pairs: bool) -> Texts:
    """Made-up news: headline and description as two texts or as one."""
    frame = sample_news(SAMPLE_ROWS)
    first, second = frame["headline"].tolist(), frame["short_description"].tolist()
    unknown = np.full(len(first), -1)
    if pairs:
        return Texts(first, second, unknown)
    return Texts([f"{one} {other}" for one, other in zip(first, second, strict=True)], None, unknown)


def merge_adapter(model: nn.Module) -> nn.Module:
    """A PEFT model's base model with the adapter's update added to its weights; any other as it is."""
    from peft import PeftModel

    return model.merge_and_unload().eval() if isinstance(model, PeftModel) else model


def write_merged(folder: Path, stage: Path, name: str) -> str:
    """Write a whole transformers model of an adapter folder, load it back and compare the two.

    Args:
        folder: an exported adapter, or a whole model already.
        stage: the folder to write into.
        name: what the folder will be called.

    Returns:
        What to tell the user, after the folder's name.

    Raises:
        ExportError: the folder, loaded back, predicts otherwise.
        ModelError: `folder` cannot be loaded.
    """
    classifier = load_classifier(folder, device="cpu")
    rows = sample_rows(len(classifier.text_columns) == 2)
    expected = predict(classifier, rows.text, rows.pair)  # before the merge, which changes the model
    model: Any = merge_adapter(classifier.model)
    with quiet_loading():
        model.save_pretrained(stage)
    write_parts(classifier, model.config, stage)
    tolerance = FP32_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    difference = verify_export(stage, rows, expected, AmpPolicy("fp32", torch.device("cpu")), tolerance)
    introduction = f"A transformers model that sorts texts into {len(classifier.label_names)} classes."
    lines = (
        f"{loading_lines(name, False, {})}\n"
        f"inputs = tokenizer({_examples(classifier.text_columns)}, truncation=True, padding=True, "
        'return_tensors="pt")\n'
        "print([model.config.id2label[int(i)] for i in model.eval()(**inputs).logits.argmax(dim=1)])"
    )
    card = converted_card(folder, name, "transformers", introduction, lines)
    (stage / CARD_FILE).write_text(card, encoding="utf-8")
    return (
        f"a whole model; loaded back with plain transformers it predicts what it was made from does on "
        f"{len(expected)} made-up rows (logits differ by at most {difference:.2g} in fp32)"
    )


def write_parts(classifier: Classifier, config: Any, stage: Path) -> None:
    """Write tokenizer and config.json, with labels, text columns and the length that is read."""
    tokenizer = classifier.tokenizer
    # A stranger's line cuts at the tokenizer's own limit, and some tokenizers know of none.
    tokenizer.model_max_length = classifier.max_length
    with quiet_loading():
        tokenizer.save_pretrained(stage)
        config.save_pretrained(stage)
    names = label_config(classifier.label_names)
    entries = read_json(stage / MODEL_CONFIG) | {
        "id2label": names["id2label"],
        "label2id": names["label2id"],
        OWN_ENTRY: {"text_columns": list(classifier.text_columns), "max_length": classifier.max_length},
    }
    (stage / MODEL_CONFIG).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def onnx_lines(name: str, text_columns: Sequence[str]) -> str:
    """Python lines that run an ONNX folder with ONNX Runtime.

    Args:
        name: the folder's.
        text_columns: columns it was trained on, two for pairs.
    """
    folder, file = (json.dumps(text, ensure_ascii=False) for text in (name, f"{name}/{ONNX_FILE}"))
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
    return ", ".join(
        json.dumps([f"your {column}"], ensure_ascii=False) for column in text_columns or ("text",)
    )


def converted_card(source: Path, name: str, library: str, introduction: str, lines: str) -> str:
    """The text of README.md: the source's own card with another beginning.

    Args:
        source: the folder it was made from. All that its card says of base model, data, scores and search
            holds for the new folder too; only how to load it does not.
        name: the new folder's.
        library: as model hubs name it.
        introduction: what it is.
        lines: Python lines that run it.
    """
    try:
        text = (source / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""  # it has none, or somebody's own
    card = read_card(text)
    metadata, body = (vars(card.data), card.text) if card else ({}, text)
    beginning, *sections = re.split(r"^(?=## )", body, flags=re.MULTILINE)
    title = re.search(r"^# (.+)$", beginning, re.MULTILINE)
    kept = [section for section in sections if section.splitlines()[0].strip() != f"## {LOADING}"]
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(TEMPLATE).render(
        metadata=_metadata(metadata, library),
        title=title[1] if title else escape(name),
        introduction=introduction,
        lines=lines,
        rest="".join(["\n", *kept]) if kept else "",
    )


def read_card(text: str) -> ModelCard | None:
    """A card's entries for the hub and its text, or None where the entries are no YAML."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        return ModelCard(text, ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError):
        return None


def _metadata(entries: dict[str, Any], library: str) -> str:
    from huggingface_hub import ModelCardData

    tags = [tag for tag in entries.get("tags") or () if tag != "onnx"]
    entries = {key: value for key, value in entries.items() if value is not None} | {
        "library_name": library,
        "pipeline_tag": "text-classification",
        "tags": [*(tags or ["text-classification", "lorasweep"]), *(["onnx"] if library == "onnx" else [])],
    }
    return str(ModelCardData(**entries).to_yaml())
