"""Tiny random encoders of each model family, with a tokenizer of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

# Family → model type and what its configuration needs beside the common entries.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "roberta": ("roberta", {"type_vocab_size": 1, "add_pooling_layer": False}),
    "distilbert": ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}),
    "electra": ("electra", {"embedding_size": 16}),
    "deberta": (
        "deberta",
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0},
    ),
    "deberta-v2": (
        "deberta-v2",
        {
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "share_att_key": True,
            "position_buckets": 8,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": ("modernbert", {"global_attn_every_n_layers": 2, "local_attention": 8}),
    "mpnet": ("mpnet", {}),
}

WORDS = """
    markets rally as inflation cools senate votes on budget film star wins award team new vaccine trial
    phone maker chips court game season doctors study space launch bank shares rise fall album city mayor
""".split()  # noqa: SIM905 - easier to read than a list
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tiny_base(family: str, folder: Path, **overrides: Any) -> Path:
    """Write a tiny random checkpoint; `overrides` are entries of its configuration."""
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model_type, entries = FAMILIES[family]
    entries = dict(entries)
    pooling = (
        {"add_pooling_layer": entries.pop("add_pooling_layer")} if "add_pooling_layer" in entries else {}
    )
    vocabulary = SPECIAL_TOKENS + WORDS
    common = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "bos_token_id": 2,
        "eos_token_id": 3,
        # Wider than the usual 0.02: with so few layers the texts would hardly show in the logits.
        "initializer_range": 0.3,
    }
    config = CONFIG_MAPPING[model_type](**(common | entries | overrides))
    torch.manual_seed(7)
    AutoModel.from_config(config, **pooling).save_pretrained(folder)
    tiny_tokenizer(typed=model_type in ("bert", "electra")).save_pretrained(folder)
    return folder


def tiny_tokenizer(typed: bool) -> Any:
    """A word-level tokenizer of `WORDS`; `typed` gives token types, which only some families read."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(SPECIAL_TOKENS + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"],
    )
