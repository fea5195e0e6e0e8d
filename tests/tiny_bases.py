"""Tiny random models of each family, with a tokenizer of a few words."""

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
    "albert": ("albert", {"embedding_size": 16}),
    "t5": (
        "t5",
        {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    ),
    # Decoders. With as many heads for keys as for queries, and with fewer.
    "llama": ("llama", {"num_key_value_heads": 2}),
    "qwen3": ("qwen3", {"num_key_value_heads": 1, "head_dim": 16}),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, "initializer_range": 0.2}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 48}),
}

# Families built like one of those: only what may differ is tested.
ALIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta": ("xlm-roberta", {"pad_token_id": 1}),
    "camembert": ("camembert", {"pad_token_id": 1}),
    "nomic_bert": ("nomic_bert", {}),
    "mt5": ("mt5", FAMILIES["t5"][1] | {"feed_forward_proj": "gated-gelu"}),
    "mistral": ("mistral", {"num_key_value_heads": 2, "sliding_window": 4}),
    "qwen2": ("qwen2", {"num_key_value_heads": 2}),
    "smollm3": ("smollm3", {"num_key_value_heads": 2}),
    "gemma": ("gemma", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("gemma2", {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4}),
    "gemma3_text": ("gemma3_text", {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4}),
}

# Architectures with other heads, which have no presets of target modules. None leaves a common entry out.
_SEQ2SEQ: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
_XLM: dict[str, Any] = {"emb_dim": 32, "n_layers": 2, "n_heads": 2}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("bart", _SEQ2SEQ),
    "xlnet": (
        "xlnet",
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48, "max_position_embeddings": None},
    ),
    "flaubert": ("flaubert", _XLM),
    "xlm": ("xlm", _XLM),
    "funnel": (
        "funnel",
        {
            "architectures": ["FunnelBaseModel"],
            "num_hidden_layers": None,
            "block_sizes": [1, 1],
            "d_model": 32,
            "n_head": 2,
            "d_head": 16,
            "d_inner": 48,
        },
    ),
    "fnet": ("fnet", {}),
    "eurobert": ("eurobert", {"num_key_value_heads": 2}),
    "stablelm": ("stablelm", {"num_key_value_heads": 2}),
    "longformer": ("longformer", {"attention_window": 8, "pad_token_id": 1}),
    "nystromformer": ("nystromformer", {"num_landmarks": 64}),
}

WORDS = """
    markets rally as inflation cools senate votes on budget film star wins award team new vaccine trial
    phone maker chips court game season doctors study space launch bank shares rise fall album city mayor
""".split()  # noqa: SIM905 - easier to read than a list
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tiny_base(
    family: str, folder: Path, *, labels: int | None = None, bare: bool = False, **overrides: Any
) -> Path:
    """Write a tiny random checkpoint.

    Args:
        labels: of a classifier; an encoder alone if None.
        bare: as decoders are often published: nobody says what padding is, and the tokenizer adds no tokens.
        overrides: entries of its configuration.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model_type, entries = (FAMILIES | ALIKE | OTHERS)[family]
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
    entries = {name: value for name, value in (common | entries | overrides).items() if value is not None}
    config = CONFIG_MAPPING[model_type](**entries)
    if bare:
        config.pad_token_id = None
    torch.manual_seed(7)
    if labels is not None:
        config.num_labels = labels
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    else:
        AutoModel.from_config(config, **pooling).save_pretrained(folder)
    tiny_tokenizer(typed=model_type in ("bert", "electra"), bare=bare).save_pretrained(folder)
    return folder


def tiny_tokenizer(typed: bool, bare: bool = False) -> Any:
    """A word-level tokenizer of `WORDS`.

    Args:
        typed: it gives token types, which only some families read.
        bare: it adds no tokens, has an end token and none for padding, and pads on the left.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(SPECIAL_TOKENS + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inputs = ["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"]
    if bare:
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            unk_token="[UNK]",
            eos_token="[SEP]",
            padding_side="left",
            model_input_names=inputs,
        )
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
        model_input_names=inputs,
    )
