"""Classifiers of each model family: what is shared, what is dropped out, what is trained and saved."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bases import FAMILIES
from tiny_trials import (
    CPU,
    FP32,
    copies,
    dataset,
    hyperparameters,
    loaded,
    same,
    settings,
    start,
    texts,
)
from torch import nn

from lorasweep.training.errors import ModelError
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.model.base_model import empty_model
from lorasweep.training.model.classifier import build_classifier, trainable_parameters
from lorasweep.training.model.target_modules import resolve_target_modules
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Hyperparameters

TYPED = ("bert", "electra")
METHODS = ("lora", "rslora", "dora", "full")


class TestSharing:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_trial_leaves_the_base_model_as_it_was(
        self, tiny_base: Callable[[str], Path], method: str
    ) -> None:
        base = loaded(tiny_base("bert"))
        before = copies(base.model)
        chosen = hyperparameters(method=method, dropout=0.1, base_dropout=0.3)
        rates = [module.p for module in base.model.modules() if isinstance(module, nn.Dropout)]
        state = start(base, chosen)
        for _ in fine_tune(state, dataset(), chosen, settings()):
            pass
        assert same(before, copies(base.model))
        assert [module.p for module in base.model.modules() if isinstance(module, nn.Dropout)] == rates
        assert not hasattr(base.model, "peft_config")

    def test_frozen_weights_are_the_base_models_own_memory(self, tiny_base: Callable[[str], Path]) -> None:
        base = loaded(tiny_base("bert"))
        model = build_classifier(base, hyperparameters(), 0, FP32)
        own = {p.data_ptr() for p in base.model.parameters()}
        assert {p.data_ptr() for p in model.parameters() if not p.requires_grad} == own
        assert not own & {p.data_ptr() for p in model.parameters() if p.requires_grad}
        full = build_classifier(base, hyperparameters(method="full"), 0, FP32)
        assert not own & {p.data_ptr() for p in full.parameters()}
        assert all(p.requires_grad for p in full.parameters())

    def test_classifiers_on_one_base_do_not_disturb_each_other(
        self, tiny_base: Callable[[str], Path]
    ) -> None:
        def choose(**changes: object) -> Hyperparameters:
            return hyperparameters(base_dropout=0.0, **changes)

        data = dataset()
        choices = [choose(), choose(rank=2, target_modules="attention"), choose(method="full")]
        alone = []
        for chosen in choices:
            loop = fine_tune(start(loaded(tiny_base("bert")), chosen), data, chosen, settings())
            alone.append([evaluation.train_loss for evaluation in loop])
        base = loaded(tiny_base("bert"))
        loops = [fine_tune(start(base, chosen), data, chosen, settings()) for chosen in choices]
        turns = zip(*loops, strict=True)
        together = [[evaluation.train_loss for evaluation in turn] for turn in turns]
        assert np.transpose(together).tolist() == alone


class TestDropout:
    @pytest.mark.parametrize("method", ["lora", "full"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_rate_zero_switches_every_dropout_off(
        self, tiny_base: Callable[[str], Path], family: str, method: str
    ) -> None:
        def two_passes(base_dropout: float) -> tuple[torch.Tensor, torch.Tensor]:
            model = build_classifier(
                loaded(tiny_base(family)), hyperparameters(method=method, base_dropout=base_dropout), 0, FP32
            )
            assert model.training
            inputs = texts(8, typed=family in TYPED).batch(np.arange(8), CPU)
            return model(**inputs).logits, model(**inputs).logits

        assert torch.equal(*two_passes(0.0))
        assert not torch.equal(*two_passes(0.3))

    def test_rates_that_are_not_named(self, tiny_base: Callable[[str], Path]) -> None:
        base = loaded(tiny_base("bert"))

        def rates(method: str) -> set[float]:
            model = build_classifier(base, hyperparameters(method=method, dropout=0.25), 0, FP32)
            return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}

        assert rates("full") == {0.1}
        assert rates("lora") == {0.0, 0.25}

    def test_attention_dropout_outside_a_module(self, tiny_base: Callable[[str], Path]) -> None:
        base = loaded(tiny_base("modernbert"))
        for rate in (0.0, 0.3):
            model = build_classifier(base, hyperparameters(base_dropout=rate), 0, FP32)
            held = [
                module.attention_dropout for module in model.modules() if hasattr(module, "attention_dropout")
            ]
            assert held == [rate, rate]


class TestAdapter:
    def test_its_size_is_the_formulas(self, tiny_base: Callable[[str], Path]) -> None:
        model = build_classifier(loaded(tiny_base("bert")), hyperparameters(rank=4), 0, FP32)
        a_layer = 4 * (32 + 32) + 2 * (32 + 48)
        assert trainable_parameters(model) == 4 * 2 * a_layer + (32 * 3 + 3)

    @pytest.mark.parametrize(("method", "scale"), [("lora", 2), ("rslora", 8 / math.sqrt(4)), ("dora", 2)])
    def test_its_scale(self, tiny_base: Callable[[str], Path], method: str, scale: float) -> None:
        model = build_classifier(loaded(tiny_base("bert")), hyperparameters(method=method), 0, FP32)
        adapted = [module for module in model.modules() if hasattr(module, "lora_A")]
        assert [module.scaling["default"] for module in adapted] == [scale] * 12
        assert {module.use_dora["default"] for module in adapted} == {method == "dora"}

    def test_a_fresh_one_changes_nothing_but_the_head(self, tiny_base: Callable[[str], Path]) -> None:
        base = loaded(tiny_base("bert"))
        model = build_classifier(base, hyperparameters(), 0, FP32)
        split = texts(20)
        np.testing.assert_allclose(
            predict_logits(model, split, FP32), predict_logits(base.model, split, FP32), rtol=1e-5, atol=1e-6
        )

    def test_its_seed_makes_it(self, tiny_base: Callable[[str], Path]) -> None:
        base = loaded(tiny_base("bert"))
        first, second, other = (
            copies(build_classifier(base, hyperparameters(), seed, FP32)) for seed in (3, 3, 4)
        )
        assert same(first, second)
        assert not same(first, other)

    @pytest.mark.parametrize(("family", "preset"), itertools.product(FAMILIES, ["query-value", "all-linear"]))
    def test_targets_are_known_without_the_weights(
        self, tiny_base: Callable[[str], Path], family: str, preset: str
    ) -> None:
        base = loaded(tiny_base(family))
        names = resolve_target_modules(empty_model(base.base), base.base.model_type, preset)
        assert names == resolve_target_modules(base.model, base.base.model_type, preset)
        model = build_classifier(base, hyperparameters(target_modules=preset), 0, FP32)
        adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
        assert [name.removeprefix("base_model.model.") for name in adapted] == names

    def test_targets_that_match_nothing_are_refused(self, tiny_base: Callable[[str], Path]) -> None:
        with pytest.raises(ModelError, match="matches no module"):
            build_classifier(loaded(tiny_base("bert")), hyperparameters(target_modules="q_proj"), 0, FP32)
