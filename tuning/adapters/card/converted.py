"""The card of a folder that was made from another exported folder."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCard

from lorasweep.tuning.adapters.card.metadata import TASK
from lorasweep.tuning.record.words import escape

CARD_FILE = "README.md"
# The section that shows how to load the source, which does not hold for the new folder.
LOADING = "## Load it"


def read_card(text: str) -> ModelCard | None:
    """A card's metadata and text, or None where the metadata is not valid YAML."""
    try:
        return ModelCard(text, ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError):
        return None


def converted_card(source: Path, name: str, library: str, introduction: str, lines: str) -> str:
    """The text of README.md: the source's card with a new introduction and new lines to run the model.

    What the source's card says about base model, data, scores and search holds for the new folder too.

    Args:
        source: the folder that was converted. It may have no card, or somebody's own.
        name: the new folder's.
        library: the library that loads it, as model hubs name it.
        introduction: sentences that say what the folder holds.
        lines: Python lines that run it.
    """
    try:
        text = (source / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    existing = read_card(text)
    card = existing or ModelCard("")
    beginning, *sections = re.split(r"^(?=## )", existing.text if existing else text, flags=re.MULTILINE)
    title = re.search(r"^# (.+)$", beginning, re.MULTILINE)
    # Title and introduction are replaced; a warning below them stays.
    warnings = re.findall(r"^\*\*.+\*\*$", beginning, re.MULTILINE)
    blocks = [
        f"# {title[1] if title else escape(name)}",
        f"{introduction} It was found by a hyperparameter sweep of lorasweep.",
        *warnings,
        f"## Run it\n\n```python\n{lines}\n```",
    ]
    rest = [section for section in sections if section.splitlines()[0].strip() != LOADING]
    card.text = "\n" + "\n\n".join(blocks) + "\n" + "".join(["\n", *rest] if rest else [])
    tags = [tag for tag in card.data.get("tags") or () if tag != "onnx"] or [TASK, "lorasweep"]
    card.data["library_name"], card.data["pipeline_tag"] = library, TASK
    card.data["tags"] = [*tags, *(["onnx"] if library == "onnx" else [])]
    return str(card)
