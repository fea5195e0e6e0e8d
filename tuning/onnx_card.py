"""The README of an ONNX folder: what goes in, what comes out, and lines that run it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from training.inference import Classifier
from tuning.model_card import escape

TEMPLATE = Path(__file__).with_name("onnx_card.md")
# Entries of the adapter's card that hold for the ONNX model too.
KEPT_METADATA = ("base_model", "license")


def onnx_card(name: str, source: Path, classifier: Classifier, inputs: Sequence[str], verified: str) -> str:
    """The text of README.md.

    Args:
        name: the ONNX folder's.
        source: the folder it was made from.
        inputs: names of the model's inputs.
        verified: how its predictions compare with PyTorch's.
    """
    columns = classifier.text_columns
    texts = ", ".join(json.dumps(f"your {column}", ensure_ascii=False) for column in columns or ("text",))
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=_metadata(source),
        title=escape(name),
        verified=verified,
        inputs=", ".join(f"`{name}`" for name in inputs),
        labels=[escape(label) for label in classifier.label_names],
        max_length=classifier.max_length,
        pair=escape(" + ".join(columns)) if len(columns) == 2 else "",
        folder=json.dumps(name, ensure_ascii=False),
        example=texts,
    )


def _metadata(source: Path) -> str:
    """The YAML block that model hubs read; licence and base model as the source's own card states them."""
    from huggingface_hub import ModelCard, ModelCardData

    entries = {"library_name": "onnx", "pipeline_tag": "text-classification", "tags": ["text-classification", "onnx"]}
    try:
        stated = ModelCard((source / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        entries |= {key: value for key, value in stated.to_dict().items() if key in KEPT_METADATA}
    except (OSError, ValueError):
        pass  # no card, or somebody's own
    return f"---\n{ModelCardData(**entries).to_yaml()}\n---\n"
