"""Ranks and alphas by pattern: what is read, what is refused, and what PEFT makes of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_trials import FP32, hyperparameters, loaded, same, trained

from lorasweep.training.errors import ModelError
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier, load_weights, save_weights
from lorasweep.training.patterns import parse_pattern, rank_pattern
from lorasweep.training.settings import Hyperparameters


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


def test_what_is_read() -> None:
    assert parse_pattern(None) == {}
    assert parse_pattern(" query = 16, layer.[01].*value=4.5 ") == {"query": 16, "layer.[01].*value": 4.5}
    ranks = rank_pattern("query=16,value=8")
    assert ranks == {"query": 16, "value": 8}
    assert all(isinstance(rank, int) for rank in ranks.values())


@pytest.mark.parametrize(
    ("field", "written", "problem"),
    [
        ("rank_pattern", "", "is not NAME=NUMBER"),
        ("rank_pattern", "query", "'query' is not NAME=NUMBER"),
        ("rank_pattern", "query=8,", "is not NAME=NUMBER"),
        ("rank_pattern", "query=8,query=4", "query stands twice"),
        ("rank_pattern", "query=lots", "'lots' is not a number"),
        ("rank_pattern", "(=8", "no regular expression"),
        ("rank_pattern", "query=8.5", "whole number from 1 to 1024"),
        ("rank_pattern", "query=0", "whole number from 1 to 1024"),
        ("alpha_pattern", "query=0", "an alpha is above 0"),
        ("alpha_pattern", "query=inf", "an alpha is above 0"),
        ("alpha_pattern", "query=nan", "an alpha is above 0"),
    ],
)
def test_what_is_refused(field: str, written: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Hyperparameters(**{field: written})


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_modules_have_their_ranks_and_scales(bert: LoadedBase, tmp_path: Path, method: str) -> None:
    chosen = hyperparameters(
        method=method,
        rank=4,
        alpha=8,
        target_modules="attention",
        rank_pattern="query=9,1.*value=1",
        alpha_pattern="value=32",
    )
    model = build_classifier(bert, chosen, 0, FP32)
    root = 0.5 if method == "rslora" else 1
    for number, part, rank, alpha in [
        (0, "query", 9, 8),
        (0, "value", 4, 32),
        (1, "value", 1, 32),
        (1, "key", 4, 8),
    ]:
        layer = model.get_submodule(f"base_model.model.bert.encoder.layer.{number}.attention.self.{part}")
        assert layer.lora_A["default"].weight.shape[0] == rank
        assert layer.scaling["default"] == pytest.approx(alpha / rank**root)
    save_weights(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["rank_pattern"] == {"query": 9, "1.*value": 1}
    assert config["alpha_pattern"] == {"value": 32}
    again = build_classifier(bert, chosen, 1, FP32)
    load_weights(again, tmp_path)
    assert same(trained(again), trained(model))


def test_a_name_of_nothing_is_refused(bert: LoadedBase) -> None:
    with pytest.raises(
        ModelError, match="rank_pattern: 'querry' is the end of no linear layer's name; they are bert"
    ):
        build_classifier(bert, hyperparameters(rank_pattern="query=2,querry=4"), 0, FP32)
    # Not adapted here, but there.
    build_classifier(
        bert, hyperparameters(target_modules="attention", alpha_pattern="intermediate.dense=4"), 0, FP32
    )


def test_full_fine_tuning_has_no_use_for_them(bert: LoadedBase) -> None:
    model = build_classifier(bert, hyperparameters(method="full", rank_pattern="query=2"), 0, FP32)
    assert all(isinstance(p, torch.Tensor) and p.requires_grad for p in model.parameters())
