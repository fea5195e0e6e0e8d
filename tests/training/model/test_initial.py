"""PiSSA and OLoRA: PEFT's own matrices, a base that stays as it is, and a folder that plain PEFT loads equal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from pydantic import ValidationError
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
    trained,
)

from lorasweep.training.errors import ModelError
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier, load_weights, merge_adapter, save_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Hyperparameters

INITS = ("pissa", "olora")
QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


def perturb(model: torch.nn.Module) -> None:
    """Move every trained weight, so that none is what a fresh model would have."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def logits(model: torch.nn.Module, typed: bool = True) -> np.ndarray:
    return predict_logits(model.eval(), texts(9, 4, typed=typed), FP32)


@pytest.mark.parametrize("method", ["lora", "rslora"])
@pytest.mark.parametrize("init", INITS)
def test_the_matrices_are_pefts(tiny_base: Callable[[str], Path], init: str, method: str) -> None:
    base, other = loaded(tiny_base("bert")), loaded(tiny_base("bert"))
    chosen = hyperparameters(method=method, init=init, target_modules="query-value", alpha_pattern="value=3")
    model = build_classifier(base, chosen, 0, FP32)
    config = LoraConfig(
        TaskType.SEQ_CLS, target_modules=["query", "value"], r=4, lora_alpha=8, init_lora_weights=init,
        use_rslora=method == "rslora", alpha_pattern={"value": 3}, modules_to_save=list(other.missing),
    )  # fmt: skip
    expected: Any = get_peft_model(other.model, config)
    for name, module in expected.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            ours: Any = model.get_submodule(name)
            for matrix in ("lora_A", "lora_B"):
                torch.testing.assert_close(
                    getattr(ours, matrix)["default"].weight, getattr(module, matrix)["default"].weight
                )
            torch.testing.assert_close(ours.base_layer.weight, module.base_layer.weight)


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("init", INITS)
def test_it_begins_as_the_base_model_which_stays_as_it_is(
    tiny_base: Callable[[str], Path], init: str, method: str
) -> None:
    base = loaded(tiny_base("bert"))
    before, plain = copies(base.model), logits(start(base, hyperparameters()).model)
    chosen = hyperparameters(method=method, init=init)
    state = start(base, chosen)
    np.testing.assert_allclose(logits(state.model.eval()), plain, atol=2e-5)
    state.model.train()
    list(fine_tune(state, dataset(), chosen, settings()))
    assert not np.allclose(logits(state.model), plain, atol=1e-2)
    assert same(copies(base.model), before)
    # Nor does the next trial in the process see anything of it.
    np.testing.assert_array_equal(logits(start(base, hyperparameters()).model), plain)


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "albert"])
def test_what_is_saved_is_a_plain_adapter(
    tiny_base: Callable[[str], Path], tmp_path: Path, family: str, init: str, method: str
) -> None:
    folder = tiny_base(family)
    base, typed = loaded(folder), family == "bert"
    chosen = hyperparameters(method=method, init=init, rank=3, alpha_pattern=".*=5", rank_pattern=".*=2")
    model = build_classifier(base, chosen, 0, FP32)
    perturb(model)
    expected = logits(model, typed)
    save_weights(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"], config["init_lora_weights"]) == (6, {".*": 4}, True)
    plain = PeftModel.from_pretrained(loaded(folder).model, tmp_path)
    np.testing.assert_allclose(logits(plain, typed), expected, atol=1e-4)
    np.testing.assert_allclose(logits(merge_adapter(plain), typed), expected, atol=1e-4)
    # The trial itself gets its own form back, whatever it began with.
    again = build_classifier(base, chosen, 7, FP32)
    perturb(again)
    load_weights(again, tmp_path)
    assert same(trained(again), trained(model))
    np.testing.assert_allclose(logits(again, typed), expected, atol=1e-5)
    np.testing.assert_allclose(logits(merge_adapter(again), typed), expected, atol=1e-4)


@pytest.mark.parametrize("init", INITS)
def test_a_trial_goes_on_as_if_it_had_never_stopped(bert: LoadedBase, tmp_path: Path, init: str) -> None:
    chosen = hyperparameters(init=init, dropout=0.1)
    whole = start(bert, chosen)
    expected = [e.scores.loss for e in fine_tune(whole, dataset(), chosen, settings())]
    cut = start(bert, chosen)
    next(fine_tune(cut, dataset(), chosen, settings()))
    cut.save(tmp_path)
    again = start(bert, chosen)
    again.load(tmp_path)
    found = [e.scores.loss for e in fine_tune(again, dataset(), chosen, settings())]
    assert found == expected[1:]
    assert same(trained(again.model), trained(whole.model))


def test_frozen_weights_take_the_amp_type_and_only_adapted_ones_are_the_trials_own(bert: LoadedBase) -> None:
    amp = AmpPolicy("bf16", CPU)
    first, second = (
        build_classifier(bert, hyperparameters(init=init, target_modules="query-value"), 0, amp)
        for init in ("pissa", "default")
    )
    own = {name: p for name, p in first.named_parameters() if not p.requires_grad}
    others = dict(second.named_parameters())
    apart = {name for name, p in own.items() if p.data_ptr() != others[name].data_ptr()}
    assert {name.rsplit(".", 3)[1] for name in apart} == {"query", "value"}
    assert all(own[name].dtype == torch.bfloat16 for name in apart)
    bert.frozen.drop()


@pytest.mark.parametrize("init", INITS)
def test_weights_are_decomposed_once(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    base, other = loaded(tiny_base("bert")), loaded(tiny_base("bert"))
    build_classifier(base, hyperparameters(init=init, rank=2), 0, FP32)
    fresh = build_classifier(other, hyperparameters(init=init, rank=7, method="rslora"), 0, FP32)
    for name in ("svd", "qr"):
        monkeypatch.delattr(torch.linalg, name)
    again = build_classifier(base, hyperparameters(init=init, rank=7, method="rslora"), 0, FP32)
    assert same(copies(again), copies(fresh))


def test_a_rank_above_the_layers_is_refused(bert: LoadedBase) -> None:
    with pytest.raises(
        ModelError, match=rf"init: pissa takes rank 40 out of {QUERY}.*which has only 32; lower rank"
    ):
        build_classifier(bert, hyperparameters(init="pissa", rank=40), 0, FP32)


def test_weights_of_another_form_are_refused(bert: LoadedBase, tmp_path: Path) -> None:
    save_weights(build_classifier(bert, hyperparameters(), 0, FP32), tmp_path)
    with pytest.raises(ModelError, match="other hyperparameters"):
        load_weights(build_classifier(bert, hyperparameters(init="olora"), 0, FP32), tmp_path)


def test_other_ways_to_begin_are_refused() -> None:
    with pytest.raises(ValidationError, match="'default', 'pissa' or 'olora'"):
        Hyperparameters(init="pissa_niter_4")


def test_full_fine_tuning_has_no_use_for_it(bert: LoadedBase) -> None:
    model = build_classifier(bert, hyperparameters(method="full", init="pissa"), 0, FP32)
    assert same(copies(model), copies(bert.model))
