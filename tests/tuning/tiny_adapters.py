"""Exported folders of tiny models in which every weight matters, written by plain PEFT and transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

LABELS = ("business", "arts & <film>", "health")
# What the classes' words are; all of them are known to the tiny tokenizer.
TEXTS = (
    "markets rally as inflation cools",
    "film star wins award",
    "new vaccine trial",
    "team wins court game",
)
MAX_LENGTH = 12


def make_folder(
    base: Path,
    folder: Path,
    *,
    whole: bool = False,
    text_columns: Sequence[str] = (),
    labels: Sequence[str] = LABELS,
    max_length: int = MAX_LENGTH,
) -> Path:
    """An adapter folder on a base model's folder, or a whole model's."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(3)
    model, info = AutoModelForSequenceClassification.from_pretrained(base, output_loading_info=True, **names)
    fresh = sorted({name.rpartition(".")[0] for name in info["missing_keys"]})
    pattern = r".*\.(query|value|query_proj|value_proj|q_lin|v_lin|q|v|Wqkv|in_proj)"
    adapter = get_peft_model(
        model, LoraConfig(TaskType.SEQ_CLS, target_modules=pattern, r=4, modules_to_save=fresh)
    )
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    config = model.config
    (adapter.eval().merge_and_unload() if whole else adapter).save_pretrained(folder)
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base, model_max_length=max_length).save_pretrained(folder)
    entries = json.loads((folder / "config.json").read_text())
    entries["lorasweep"] = {"text_columns": list(text_columns), "max_length": max_length}
    (folder / "config.json").write_text(json.dumps(entries))
    return folder
