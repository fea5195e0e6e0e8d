"""Layers: their numbers, the modules adapted in them, and an adapter that PEFT reads back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_bases import make_tiny_base
from tiny_trials import CPU, FP32, dataset, hyperparameters, loaded
from torch import nn

from lorasweep.training.errors import ModelError, SettingsError
from lorasweep.training.model.base_model import empty_model, resolve_base_model
from lorasweep.training.model.classifier import build_classifier, save_weights
from lorasweep.training.model.layers import chosen_layers, in_layers, layer_number
from lorasweep.training.model.target_modules import PRESETS, resolve_target_modules

# Family → what its configuration needs to have five layers.
FIVE = {
    "bert": {"num_hidden_layers": 5},
    "distilbert": {"num_hidden_layers": 5},
    "modernbert": {"num_hidden_layers": 5},
    "t5": {"num_layers": 5, "num_decoder_layers": 5},
    "qwen3": {"num_hidden_layers": 5},
    "gpt2": {"num_hidden_layers": 5},
    "albert": {"num_hidden_groups": 5},
}
CHOICES = {
    "all": [0, 1, 2, 3, 4],
    "upper-half": [2, 3, 4],
    "every-other": [0, 2, 4],
    "1-3": [1, 2, 3],
    "4-4": [4],
}


@pytest.mark.parametrize("family", FIVE)
def test_only_the_chosen_layers_are_adapted_by_every_preset(tmp_path: Path, family: str) -> None:
    base = resolve_base_model(str(make_tiny_base(family, tmp_path / family, **FIVE[family])))
    model = empty_model(base)
    for preset in PRESETS:
        everywhere = resolve_target_modules(model, base.model_type, preset)
        for layers, numbers in CHOICES.items():
            assert chosen_layers(model, layers) == numbers
            found = resolve_target_modules(model, base.model_type, preset, layers)
            assert found == [name for name in everywhere if layer_number(name) in numbers]
            assert {layer_number(name) for name in found} == set(numbers)


def test_of_ten_and_more_layers_the_numbers_are_not_mixed_up() -> None:
    pattern = in_layers(r"bert[.]encoder[.]layer[.]\d+[.]output[.]dense|.*query", [1, 11])
    names = [
        f"bert.encoder.layer.{number}.{end}" for number in range(13) for end in ("output.dense", "a.query")
    ]
    found = {layer_number(name) for name in names if re.fullmatch(pattern, name)}
    assert found == {1, 11}
    assert not re.fullmatch(pattern, "query")
    # T5 has numbers further on.
    assert not re.fullmatch(in_layers(".*", [1]), "transformer.encoder.block.0.layer.1.DenseReluDense.wi")


def test_an_adapter_on_some_layers_is_read_back_by_plain_peft(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """Also of a pattern of one's own."""
    base = loaded(tiny_base("bert"))
    inputs = dataset().test.batch(torch.arange(6).numpy(), CPU)
    for number, target_modules in enumerate(("feed-forward", "bert[.].*(query|value)|.*key")):
        model = build_classifier(
            base, hyperparameters(target_modules=target_modules, layers="upper-half"), 0, FP32
        )
        adapted = [name for name, _ in model.named_parameters() if "lora_A" in name]
        assert {layer_number(name.removeprefix("base_model.model.")) for name in adapted} == {1}
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight.data, std=0.1)
        save_weights(model, tmp_path / str(number))
        again = PeftModel.from_pretrained(loaded(tiny_base("bert")).model, str(tmp_path / str(number)))
        with torch.inference_mode():
            wanted = model.eval()(**inputs).logits
            torch.testing.assert_close(again.eval()(**inputs).logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", ["0-2", "1-0", "2-2"])
def test_layers_that_the_model_does_not_have(tiny_base: Callable[[str], Path], layers: str) -> None:
    model = loaded(tiny_base("bert")).model
    with pytest.raises(
        SettingsError, match=f"layers: {layers} is no range of this model's 2 layers"
    ) as caught:
        resolve_target_modules(model, "bert", "attention", layers)
    assert "0 to 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_layer_for_all_is_no_choice(tiny_base: Callable[[str], Path]) -> None:
    with pytest.raises(
        SettingsError, match="layers: upper-half needs layers to choose from, and this model has 1"
    ):
        chosen_layers(loaded(tiny_base("albert")).model, "upper-half")


def test_a_pattern_of_other_layers_matches_nothing(tiny_base: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="matches no module of this bert model in its layers upper-half"):
        resolve_target_modules(
            loaded(tiny_base("bert")).model, "bert", r"bert.*layer[.]0[.].*query", "upper-half"
        )
