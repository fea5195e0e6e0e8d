"""The last layer for the first token alone: the same logits and gradients, with less work."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_bases import FAMILIES
from tiny_trials import CPU, dataset, loaded
from torch import nn

from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.faster.first_token import read_first_token_only

CHANGED = ("bert", "roberta", "electra", "distilbert")


def run(model: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of rows of several lengths, and the gradients of their loss by every parameter."""
    texts = dataset().train
    logits = model(**texts.batch(torch.arange(8).numpy(), CPU)).logits
    nn.functional.cross_entropy(logits, torch.from_numpy(texts.labels[:8])).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), found


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_the_whole_layer(family: str, tiny_base: Callable[[str], Path]) -> None:
    whole = loaded(tiny_base(family)).model.eval()
    short = copy.deepcopy(whole)
    read_first_token_only(short)
    # A copy of the copy is computed by its own weights, not by those of the first.
    again = copy.deepcopy(short)
    with torch.no_grad():
        for parameter in short.parameters():
            parameter.add_(1.0)
    (wanted, by), (found, by_again) = run(whole), run(again)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert by.keys() == by_again.keys()
    scale = max(gradient.abs().max() for gradient in by.values())
    for name, gradient in by.items():
        torch.testing.assert_close(by_again[name], gradient, rtol=1e-4, atol=1e-5 * float(scale), msg=name)
    assert again.state_dict().keys() == whole.state_dict().keys()


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"t5"}))  # which has two parts with last layers
def test_the_last_layer_has_one_token(family: str, tiny_base: Callable[[str], Path]) -> None:
    model = loaded(tiny_base(family)).model.eval()
    read_first_token_only(model)
    inputs = dataset().train.batch(torch.arange(8).numpy(), CPU)
    with torch.no_grad():
        last = getattr(model, model.base_model_prefix)(**inputs).last_hidden_state
    assert (last.shape[1] == 1) == (family in CHANGED)


def test_every_type_it_names_is_built_like_bert() -> None:
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for kind in (name for name, family in MODEL_FAMILIES.items() if family.first_token == "bert"):
        config = CONFIG_MAPPING[kind](
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=32
        )
        model = AutoModelForSequenceClassification.from_config(config).eval()
        ids = torch.randint(3, 32, (2, 6))
        with torch.no_grad():
            wanted = model(ids).logits
            read_first_token_only(model)
            torch.testing.assert_close(model(ids).logits, wanted, rtol=1e-5, atol=1e-6)
            assert getattr(model, model.base_model_prefix)(ids).last_hidden_state.shape[1] == 1


def test_eager_attention_is_left_alone(tiny_base: Callable[[str], Path]) -> None:
    model = loaded(tiny_base("bert")).model
    model.set_attn_implementation("eager")
    before = [type(module) for module in model.modules()]
    read_first_token_only(model)
    assert [type(module) for module in model.modules()] == before
