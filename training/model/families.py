"""The model families: the one place to add one.

A new family is an entry of `MODEL_FAMILIES`, and a tiny model of it in the tests. Models of other types train
too, with a regular expression for `target_modules` instead of a preset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Family:
    """What lorasweep needs to know of a transformers model type.

    Attributes:
        prefix: regular expression over the names of the model's layers.
        query_value: names below it, of the linear layers that make query and value; the fused projection
            where a model has no separate ones, so that the key is adapted too.
        attention: all linear layers of the attention block.
        feed_forward: those of the feed-forward block.
        extra: linear layers that only the preset all-linear adapts.
        first_token: the head reads the first token's output alone, and the last layer is built like BERT's
            (`bert`) or DistilBERT's (`distilbert`); see `faster.first_token`.
        fp32_only: its code does not run under autocast.
        decoder: the head reads a row's last token that is not padding, so the configuration has to name the token that
            the tokenizer pads with.
        captured: its forward pass can become a CUDA graph; some copy from the host or wait for the device within it.
    """

    prefix: str
    query_value: tuple[str, ...]
    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    extra: tuple[str, ...] = ()
    first_token: Literal["bert", "distilbert"] | None = None
    fp32_only: bool = False
    decoder: bool = False
    captured: bool = True


BERT = Family(
    prefix=r"bert[.]encoder[.]layer[.]\d+[.]",
    query_value=("attention.self.query", "attention.self.value"),
    attention=(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
    feed_forward=("intermediate.dense", "output.dense"),
    first_token="bert",
)
ROBERTA = replace(BERT, prefix=r"roberta[.]encoder[.]layer[.]\d+[.]")
LLAMA = Family(
    prefix=r"model[.]layers[.]\d+[.]",
    query_value=("self_attn.q_proj", "self_attn.v_proj"),
    attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    feed_forward=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    decoder=True,
)
# Its classifier reads the text with the encoder and again with the decoder, so both are adapted. mT5's feed-forward
# block has two first layers, T5's one.
T5 = Family(
    prefix=r"transformer[.](en|de)coder[.]block[.]\d+[.]layer[.]\d[.]",
    query_value=("SelfAttention.q", "SelfAttention.v", "EncDecAttention.q", "EncDecAttention.v"),
    attention=(
        "SelfAttention.q",
        "SelfAttention.k",
        "SelfAttention.v",
        "SelfAttention.o",
        "EncDecAttention.q",
        "EncDecAttention.k",
        "EncDecAttention.v",
        "EncDecAttention.o",
    ),
    feed_forward=(
        "DenseReluDense.wi",
        "DenseReluDense.wi_0",
        "DenseReluDense.wi_1",
        "DenseReluDense.wo",
    ),
    captured=False,  # it counts the rows' end tokens
)

MODEL_FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "electra": replace(BERT, prefix=r"electra[.]encoder[.]layer[.]\d+[.]"),
    "distilbert": Family(
        prefix=r"distilbert[.]transformer[.]layer[.]\d+[.]",
        query_value=("attention.q_lin", "attention.v_lin"),
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        feed_forward=("ffn.lin1", "ffn.lin2"),
        first_token="distilbert",
    ),
    # The projections of relative positions (DeBERTa) do not see the text: only all-linear takes them.
    # DeBERTa-v2 and -v3 as published share them with query and key (`share_att_key`) and have none.
    "deberta": Family(
        prefix=r"deberta[.]encoder[.]layer[.]\d+[.]",
        query_value=("attention.self.in_proj",),
        attention=("attention.self.in_proj", "attention.output.dense"),
        feed_forward=("intermediate.dense", "output.dense"),
        extra=(
            "attention.self.pos_proj",
            "attention.self.pos_q_proj",
            "attention.self.head_logits_proj",
            "attention.self.head_weights_proj",
        ),
        # Its attention in transformers 5 fills masked scores with fp32's minimum although autocast has made
        # them bf16 or fp16, and stops with an overflow. DeBERTa-v2 and -v3 do not.
        fp32_only=True,
        captured=False,
    ),
    "deberta-v2": Family(
        prefix=r"deberta[.]encoder[.]layer[.]\d+[.]",
        query_value=("attention.self.query_proj", "attention.self.value_proj"),
        attention=(
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.output.dense",
        ),
        feed_forward=("intermediate.dense", "output.dense"),
        extra=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
        captured=False,
    ),
    "modernbert": Family(
        prefix=r"model[.]layers[.]\d+[.]",
        query_value=("attn.Wqkv",),
        attention=("attn.Wqkv", "attn.Wo"),
        feed_forward=("mlp.Wi", "mlp.Wo"),
    ),
    "mpnet": Family(
        prefix=r"mpnet[.]encoder[.]layer[.]\d+[.]",
        query_value=("attention.attn.q", "attention.attn.v"),
        attention=("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
        feed_forward=("intermediate.dense", "output.dense"),
    ),
    # One layer stands for all of a group, and so does its adapter.
    "albert": Family(
        prefix=r"albert[.]encoder[.]albert_layer_groups[.]\d+[.]albert_layers[.]\d+[.]",
        query_value=("attention.query", "attention.value"),
        attention=("attention.query", "attention.key", "attention.value", "attention.dense"),
        feed_forward=("ffn", "ffn_output"),
    ),
    "t5": T5,
    "mt5": T5,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "smollm3": LLAMA,
    "gemma": LLAMA,
    "gemma2": LLAMA,
    "gemma3_text": LLAMA,
    # An encoder with Llama's layers.
    "nomic_bert": replace(LLAMA, prefix=r"nomic_bert[.]layers[.]\d+[.]", decoder=False),
    "opt": replace(
        LLAMA,
        prefix=r"model[.]decoder[.]layers[.]\d+[.]",
        attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
        feed_forward=("fc1", "fc2"),
    ),
    "gpt_neox": Family(
        prefix=r"gpt_neox[.]layers[.]\d+[.]",
        query_value=("attention.query_key_value",),
        attention=("attention.query_key_value", "attention.dense"),
        feed_forward=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        decoder=True,
    ),
    "gpt2": Family(
        prefix=r"transformer[.]h[.]\d+[.]",
        query_value=("attn.c_attn",),
        attention=("attn.c_attn", "attn.c_proj"),
        feed_forward=("mlp.c_fc", "mlp.c_proj"),
        decoder=True,
    ),
}
"""By transformers' `config.model_type`. DeBERTa-v3 is of type deberta-v2, Pythia of type gpt_neox."""
