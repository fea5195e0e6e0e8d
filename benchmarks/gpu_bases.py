"""Base models at their real size with random weights, and token ids in place of texts: nothing is downloaded.

A model's speed is that of any weights. The folders hold an encoder without a head, as a real checkpoint does, so the
bases are loaded as a trial loads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.model.base_model import LoadedBase, load_base, resolve_base_model

CLASSES = 41
LABELS = tuple(f"class {number}" for number in range(CLASSES))


@dataclass(frozen=True, eq=False)
class Size:
    """A base model's size: its model type and what differs from the type's own defaults."""

    name: str
    model_type: str
    entries: dict[str, Any]
    typed: bool = False


BERT_BASE = Size("BERT-base", "bert", {}, typed=True)
ROBERTA_LARGE = Size(
    "RoBERTa-large",
    "roberta",
    {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    },
)
MODERNBERT = Size("ModernBERT", "modernbert", {})
SIZES = (BERT_BASE, ROBERTA_LARGE, MODERNBERT)

# In small: two layers of any type.
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 160,
}
SPECIAL = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
# Fake token ids lie in this range, in every vocabulary.
FIRST_TOKEN, LAST_TOKEN = 10, 1000


def base_folder(size: Size, folder: Path, small: bool, device: torch.device) -> Path:
    """The folder of a base model, written when it is first asked for.

    Args:
        folder: where the bases are kept.
        small: two layers instead of the real size.
        device: that draws the random weights; on a CPU ModernBERT's take a minute.
    """
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    place = folder / (size.model_type + "-small" * small)
    if not place.is_dir():
        config = CONFIG_MAPPING[size.model_type](**size.entries | (SMALL if small else {}) | SPECIAL)
        torch.manual_seed(0)
        unfinished = place.with_suffix(".unfinished")
        with device:
            model = AutoModel.from_config(config)
        model.save_pretrained(unfinished)
        unfinished.rename(place)
    return place


def load(folder: Path) -> LoadedBase:
    """A base as a trial loads it, with a fresh head: on the CPU, where the processes of a machine share it."""
    return load_base(resolve_base_model(str(folder)), LABELS, 0)


def load_plainly(folder: Path, device: torch.device) -> nn.Module:
    """A base as transformers' documentation loads it, with a fresh head."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=CLASSES, dtype=torch.float32
    )
    return model.to(device)


def fake_texts(lengths: np.ndarray, typed: bool, seed: int = 0) -> EncodedTexts:
    """Random token ids; the second token of a row tells its label, so there is something to learn.

    Args:
        lengths: tokens of each row; int, shape (rows,).
        typed: with token types.
    """
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    labels = random.integers(0, CLASSES, len(lengths))
    ids = random.integers(FIRST_TOKEN + CLASSES, LAST_TOKEN, offsets[-1]).astype(np.int32)
    ids[offsets[:-1]] = SPECIAL["cls_token_id"]
    ids[offsets[1:] - 1] = SPECIAL["sep_token_id"]
    ids[offsets[:-1] + 1] = FIRST_TOKEN + labels
    return EncodedTexts(
        input_ids=ids,
        type_ids=np.zeros(len(ids), np.uint8) if typed else None,
        offsets=offsets,
        labels=labels,
        pad_id=SPECIAL["pad_token_id"],
    )


def even_texts(rows: int, tokens: int, size: Size) -> EncodedTexts:
    """Rows of one length."""
    return fake_texts(np.full(rows, tokens), size.typed)


def headline_texts(rows: int, size: Size, seed: int = 0) -> EncodedTexts:
    """Rows as long as news headlines: 6 to 46 tokens, half of them 12 to 16."""
    random = np.random.default_rng(seed + 1)
    lengths = np.clip(random.normal(14, 4, rows).round().astype(int), 6, 46)
    return fake_texts(lengths, size.typed, seed)


def headline_dataset(rows: int, size: Size) -> EncodedDataset:
    """Training rows as long as headlines, and an eighth as many to validate and to test on."""
    fewer = max(rows // 8, 8)
    return EncodedDataset(
        headline_texts(rows, size),
        headline_texts(fewer, size, seed=1),
        headline_texts(fewer, size, seed=2),
        LABELS,
    )
