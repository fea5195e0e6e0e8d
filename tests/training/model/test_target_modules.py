"""Presets against the exact module lists of small random models, one of each family."""

import re

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

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
SPECIAL_TOKENS = dict.fromkeys(
    ["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 1
)

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

# variant → the encoder layer without its number, preset → names below it in the model's order
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
}


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
            expected = [f"{layers}.{number}.{name}" for number in range(2) for name in names]
            found = resolve_target_modules(model, MODELS[variant][0], preset)
            # DeBERTa makes its optional projections in an order of its own.
            assert sorted(found) == sorted(expected)
            assert found == [name for name, _ in model.named_modules() if name in found]

    def test_all_linear_is_every_linear_layer_of_the_encoder(self, variant):
        model = random_model(variant)
        layers = EXPECTED[variant][0]
        linear = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name.startswith(f"{layers}.")
        ]
        assert resolve_target_modules(model, MODELS[variant][0], "all-linear") == linear

    def test_peft_adapts_exactly_those_and_trains_them(self, variant):
        model_type = MODELS[variant][0]
        for preset in PRESETS:
            model = random_model(variant)
            names = resolve_target_modules(model, model_type, preset)
            config = LoraConfig(
                task_type=TaskType.SEQ_CLS, r=2, target_modules=target_pattern(model_type, preset)
            )
            adapted = get_peft_model(model, config)
            assert adapted.targeted_module_names == names
            tokens = torch.arange(8).reshape(2, 4) + 2
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
        assert target_pattern("gpt_neox", r".*\.query_key_value") == r".*\.query_key_value"

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
            ModelError, match="attention is not known for models of type 'gpt2', only for bert"
        ) as e:
            target_pattern("gpt2", "attention")
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
