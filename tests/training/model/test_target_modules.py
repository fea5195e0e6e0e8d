"""Presets against the exact module lists of small random models, one of each family."""

import re

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pytorch_utils import Conv1D

from lorasweep.training.errors import ModelError, SettingsError
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.target_modules import PRESETS, resolve_target_modules, target_pattern

COMMON = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_labels": 3,
}
RELATIVE = COMMON | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
SPECIAL_TOKENS = dict.fromkeys(
    ["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 1
)
LLAMAS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text")

# variant → model type, configuration
MODELS = {
    "bert": ("bert", COMMON),
    "roberta": ("roberta", COMMON),
    "xlm-roberta": ("xlm-roberta", COMMON),
    "camembert": ("camembert", COMMON),
    "electra": ("electra", COMMON | {"embedding_size": 16}),
    "distilbert": (
        "distilbert",
        {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "num_labels": 3},
    ),
    "deberta": ("deberta", RELATIVE),
    "deberta talking heads": ("deberta", RELATIVE | {"talking_head": True}),
    "deberta-v2": ("deberta-v2", RELATIVE | {"share_att_key": False}),
    "deberta-v3": ("deberta-v2", RELATIVE | {"share_att_key": True, "position_buckets": 8}),
    "modernbert": ("modernbert", COMMON | SPECIAL_TOKENS),
    "mpnet": ("mpnet", COMMON),
    "nomic_bert": ("nomic_bert", COMMON | SPECIAL_TOKENS),
    "albert": ("albert", COMMON | {"embedding_size": 16, "num_hidden_groups": 2}),
    "t5": ("t5", COMMON | T5 | {"feed_forward_proj": "relu"}),
    "t5 v1.1": ("t5", COMMON | T5 | {"feed_forward_proj": "gated-gelu"}),
    "mt5": ("mt5", COMMON | T5),
    **{name: (name, COMMON | SPECIAL_TOKENS | {"num_key_value_heads": 1, "head_dim": 16}) for name in LLAMAS},
    "opt": ("opt", COMMON | SPECIAL_TOKENS | {"ffn_dim": 48, "word_embed_proj_dim": 16}),
    "gpt_neox": ("gpt_neox", COMMON | SPECIAL_TOKENS),
    "gpt2": ("gpt2", COMMON | SPECIAL_TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 2}),
}

BERT = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
]
BERT_PRESETS = {
    "query-value": ["attention.self.query", "attention.self.value"],
    "attention": BERT[:4],
    "feed-forward": BERT[4:],
    "all-linear": BERT,
}
DEBERTA_PRESETS = {
    "query-value": ["attention.self.in_proj"],
    "attention": ["attention.self.in_proj", "attention.output.dense"],
    "feed-forward": ["intermediate.dense", "output.dense"],
    "all-linear": [
        "attention.self.in_proj",
        "attention.self.pos_proj",
        "attention.self.pos_q_proj",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
}
DEBERTA_V3_PRESETS = {
    "query-value": ["attention.self.query_proj", "attention.self.value_proj"],
    "attention": [
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        "attention.output.dense",
    ],
    "feed-forward": ["intermediate.dense", "output.dense"],
    "all-linear": [
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
}
LLAMA_PRESETS = {
    "query-value": ["self_attn.q_proj", "self_attn.v_proj"],
    "attention": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
    "feed-forward": ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    "all-linear": [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
}


def t5_presets(*first: str) -> dict[str, list[str]]:
    """Those of a block of the encoder and of one of the decoder, with these first layers of the feed-forward block."""

    def both(attention: list[str], feed_forward: list[str]) -> list[str]:
        encoder = [f"0.SelfAttention.{name}" for name in attention]
        cross = [f"1.EncDecAttention.{name}" for name in attention]
        parts = {
            "encoder": encoder + [f"1.DenseReluDense.{name}" for name in feed_forward],
            "decoder": encoder + cross + [f"2.DenseReluDense.{name}" for name in feed_forward],
        }
        return [f"{part}.block.{{}}.layer.{name}" for part, names in parts.items() for name in names]

    return {
        "query-value": both(["q", "v"], []),
        "attention": both(["q", "k", "v", "o"], []),
        "feed-forward": both([], [*first, "wo"]),
        "all-linear": both(["q", "k", "v", "o"], [*first, "wo"]),
    }


# variant → the layer without its number, preset → names below it in the model's order
EXPECTED = {
    "bert": ("bert.encoder.layer", BERT_PRESETS),
    "roberta": ("roberta.encoder.layer", BERT_PRESETS),
    "xlm-roberta": ("roberta.encoder.layer", BERT_PRESETS),
    "camembert": ("roberta.encoder.layer", BERT_PRESETS),
    "electra": ("electra.encoder.layer", BERT_PRESETS),
    "distilbert": (
        "distilbert.transformer.layer",
        {
            "query-value": ["attention.q_lin", "attention.v_lin"],
            "attention": ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
            "feed-forward": ["ffn.lin1", "ffn.lin2"],
            "all-linear": [
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "ffn.lin1",
                "ffn.lin2",
            ],
        },
    ),
    "deberta": ("deberta.encoder.layer", DEBERTA_PRESETS),
    "deberta talking heads": (
        "deberta.encoder.layer",
        DEBERTA_PRESETS
        | {
            "all-linear": [
                "attention.self.in_proj",
                "attention.self.head_logits_proj",
                "attention.self.head_weights_proj",
                "attention.self.pos_proj",
                "attention.self.pos_q_proj",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            ]
        },
    ),
    "deberta-v2": (
        "deberta.encoder.layer",
        DEBERTA_V3_PRESETS
        | {
            "all-linear": [
                "attention.self.query_proj",
                "attention.self.key_proj",
                "attention.self.value_proj",
                "attention.self.pos_key_proj",
                "attention.self.pos_query_proj",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            ]
        },
    ),
    "deberta-v3": ("deberta.encoder.layer", DEBERTA_V3_PRESETS),
    "modernbert": (
        "model.layers",
        {
            "query-value": ["attn.Wqkv"],
            "attention": ["attn.Wqkv", "attn.Wo"],
            "feed-forward": ["mlp.Wi", "mlp.Wo"],
            "all-linear": ["attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"],
        },
    ),
    "mpnet": (
        "mpnet.encoder.layer",
        {
            "query-value": ["attention.attn.q", "attention.attn.v"],
            "attention": ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"],
            "feed-forward": ["intermediate.dense", "output.dense"],
            "all-linear": [
                "attention.attn.q",
                "attention.attn.k",
                "attention.attn.v",
                "attention.attn.o",
                "intermediate.dense",
                "output.dense",
            ],
        },
    ),
    "nomic_bert": ("nomic_bert.layers", LLAMA_PRESETS),
    "albert": (
        "albert.encoder.albert_layer_groups.{}.albert_layers.0",
        {
            "query-value": ["attention.query", "attention.value"],
            "attention": ["attention.query", "attention.key", "attention.value", "attention.dense"],
            "feed-forward": ["ffn", "ffn_output"],
            "all-linear": [
                "attention.query",
                "attention.key",
                "attention.value",
                "attention.dense",
                "ffn",
                "ffn_output",
            ],
        },
    ),
    "t5": ("transformer", t5_presets("wi")),
    "t5 v1.1": ("transformer", t5_presets("wi_0", "wi_1")),
    "mt5": ("transformer", t5_presets("wi_0", "wi_1")),
    **dict.fromkeys(LLAMAS, ("model.layers", LLAMA_PRESETS)),
    "opt": (
        "model.decoder.layers",
        {
            "query-value": ["self_attn.q_proj", "self_attn.v_proj"],
            "attention": ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"],
            "feed-forward": ["fc1", "fc2"],
            "all-linear": [
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.q_proj",
                "self_attn.out_proj",
                "fc1",
                "fc2",
            ],
        },
    ),
    "gpt_neox": (
        "gpt_neox.layers",
        {
            "query-value": ["attention.query_key_value"],
            "attention": ["attention.query_key_value", "attention.dense"],
            "feed-forward": ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
            "all-linear": [
                "attention.query_key_value",
                "attention.dense",
                "mlp.dense_h_to_4h",
                "mlp.dense_4h_to_h",
            ],
        },
    ),
    "gpt2": (
        "transformer.h",
        {
            "query-value": ["attn.c_attn"],
            "attention": ["attn.c_attn", "attn.c_proj"],
            "feed-forward": ["mlp.c_fc", "mlp.c_proj"],
            "all-linear": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
        },
    ),
}


def full_names(layers: str, names: list[str]) -> list[str]:
    """Names in both layers; `{}` stands for a layer's number, which else follows `layers`."""
    places = [f"{layers}.{name}" if "{}" in layers + name else f"{layers}.{{}}.{name}" for name in names]
    return [place.format(number) for number in range(2) for place in places]


def random_model(variant: str):
    model_type, settings = MODELS[variant]
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(CONFIG_MAPPING[model_type](**settings))


def test_every_known_model_type_is_tested():
    assert {model_type for model_type, _ in MODELS.values()} == set(MODEL_FAMILIES)
    assert set(MODELS) == set(EXPECTED)


@pytest.mark.parametrize("variant", MODELS)
class TestPresets:
    def test_exact_modules(self, variant):
        model = random_model(variant)
        layers, presets = EXPECTED[variant]
        assert set(presets) == set(PRESETS)
        for preset, names in presets.items():
            expected = full_names(layers, names)
            found = resolve_target_modules(model, MODELS[variant][0], preset)
            # DeBERTa makes its optional projections in an order of its own.
            assert sorted(found) == sorted(expected)
            assert found == [name for name, _ in model.named_modules() if name in found]

    def test_all_linear_is_every_linear_layer_of_the_encoder(self, variant):
        model = random_model(variant)
        layers = EXPECTED[variant][0].partition(".{}")[0]
        linear = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and name.startswith(f"{layers}.")
        ]
        assert resolve_target_modules(model, MODELS[variant][0], "all-linear") == linear

    def test_peft_adapts_exactly_those_and_trains_them(self, variant):
        model_type = MODELS[variant][0]
        for preset in PRESETS:
            model = random_model(variant)
            names = resolve_target_modules(model, model_type, preset)
            config = LoraConfig(
                task_type=TaskType.SEQ_CLS,
                r=2,
                target_modules=target_pattern(model_type, preset),
                fan_in_fan_out=variant == "gpt2",
            )
            adapted = get_peft_model(model, config)
            assert adapted.targeted_module_names == names
            tokens = torch.arange(8).reshape(2, 4) + 2
            tokens[:, -1] = 1  # the end, where T5 reads the label
            loss = adapted(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=torch.tensor([0, 2])
            ).loss
            loss.backward()
            trained = [
                name
                for name, weight in adapted.named_parameters()
                if "lora_B" in name and weight.grad is not None and weight.grad.abs().sum() > 0
            ]
            # Scores are softmaxed over the keys, so a few projections may have no gradient by chance.
            assert len(trained) > len(names) // 2


class TestPatterns:
    def test_own_pattern_is_kept_as_it_is(self):
        assert target_pattern("bloom", r".*\.query_key_value") == r".*\.query_key_value"

    def test_own_pattern_on_the_model(self):
        names = resolve_target_modules(
            random_model("bert"), "bert", r"bert\.encoder\.layer\.1\..*(query|key)"
        )
        assert names == [
            "bert.encoder.layer.1.attention.self.query",
            "bert.encoder.layer.1.attention.self.key",
        ]

    def test_preset_patterns_take_dots_literally(self):
        pattern = target_pattern("bert", "query-value")
        assert re.fullmatch(pattern, "bert.encoder.layer.11.attention.self.query")
        assert not re.fullmatch(pattern, "bert.encoder.layer.11.attentionXself.query")
        assert not re.fullmatch(pattern, "other.bert.encoder.layer.11.attention.self.query")


class TestRefusals:
    def test_preset_of_an_unknown_model_type(self):
        with pytest.raises(
            ModelError, match="attention is not known for models of type 'bloom', only for albert, bert"
        ) as e:
            target_pattern("bloom", "attention")
        assert "regular expression" in str(e.value)

    def test_not_a_regular_expression(self):
        with pytest.raises(
            SettingsError, match=r"'\.\*\(query' is neither a preset .* nor a regular expression"
        ):
            target_pattern("bert", ".*(query")

    def test_no_match_shows_what_there_is(self):
        with pytest.raises(ModelError) as refusal:
            resolve_target_modules(random_model("bert"), "bert", "query|value")
        message = str(refusal.value)
        assert "'query|value' matches no module of this bert model" in message
        assert "bert.encoder.layer.0.attention.self.query" in message
        assert "layer.1" not in message
        assert "\n" not in message

    def test_misspelled_preset_names_the_preset(self):
        with pytest.raises(ModelError, match=r"did you mean the preset all-linear\?"):
            resolve_target_modules(random_model("bert"), "bert", "all_linear")

    def test_match_that_is_not_linear(self):
        with pytest.raises(
            ModelError, match=r"also matches bert\.encoder\.layer\.0\.attention \(BertAttention\)"
        ):
            resolve_target_modules(random_model("bert"), "bert", r".*attention.*")

    @pytest.mark.parametrize("variant", ["bert", "distilbert", "modernbert", "deberta"])
    def test_match_outside_the_encoder(self, variant):
        with pytest.raises(ModelError, match=r"which is outside the encoder"):
            resolve_target_modules(random_model(variant), variant, r"classifier|.*(query|q_lin|Wqkv|in_proj)")
