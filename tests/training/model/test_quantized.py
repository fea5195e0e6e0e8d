"""Base models in 4 and 8 bits, and layers that are computed again in the backward pass."""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from tiny_trials import CPU, FP32, LABELS, dataset, hyperparameters, settings
from torch import nn

from lorasweep.training.errors import LorasweepError, ModelError, SettingsError
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model import quantized as module
from lorasweep.training.model.base_model import LoadedBase, load_base, resolve_base_model
from lorasweep.training.model.classifier import (
    build_classifier,
    merge_adapter,
    model_parameters,
    set_adapter_weights,
)
from lorasweep.training.model.memory import adapter_size, measure_row
from lorasweep.training.model.quantized import (
    check_kernels,
    dequantize,
    exact_kernels,
    quantization,
    quantize_of,
    quantized_layers,
)
from lorasweep.training.model.target_modules import resolve_target_modules
from lorasweep.training.settings import Quantize

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra `quantized`"
)
KINDS: tuple[Quantize, ...] = get_args(Quantize)
CHOSEN = hyperparameters(target_modules="all-linear")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def loaded(folder: Path, kind: Quantize | None) -> LoadedBase:
    with quiet_loading():
        return load_base(resolve_base_model(str(folder)), LABELS, 0, CPU, kind)


def batch() -> dict[str, torch.Tensor]:
    rows = dataset(typed=False).train
    found = rows.batch(torch.arange(6).numpy(), CPU)
    return {**found, "labels": torch.from_numpy(rows.labels[:6])}


def loss_and_gradient(model: Any) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = model(**batch()).loss
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state


def moved(model: nn.Module) -> nn.Module:
    """The model with an adapter that does something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "qwen3"])
def test_loss_and_gradient_are_those_of_transformers_plain_way(
    family: str, kind: Quantize, tiny_base: Callable[[str], Path]
) -> None:
    """Before an evaluation and after it, and with a second trial on the same weights."""
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForSequenceClassification

    base = loaded(tiny_base(family), kind)
    assert base.quantize == kind
    assert len(list(quantized_layers(base.model))) >= 8
    model = moved(build_classifier(base, CHOSEN, 0, FP32))
    loss, gradient = loss_and_gradient(model)

    with quiet_loading():
        plain = AutoModelForSequenceClassification.from_pretrained(
            base.base.location,
            num_labels=len(LABELS),
            dtype=torch.float32,
            quantization_config=quantization(kind, base.model).config(),
            **base.base.config_entries,
        )
    plain = prepare_model_for_kbit_training(plain, use_gradient_checkpointing=False)
    plain = get_peft_model(plain, copy.deepcopy(model.peft_config["default"]))  # type: ignore[union-attr]
    set_adapter_weights(plain, trained_state(model))
    exact_kernels(plain)
    for part in plain.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    expected, expected_gradient = loss_and_gradient(plain.train())
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-5)

    other = build_classifier(base, CHOSEN, 0, FP32)
    shared = [p for name, p in other.named_parameters() if "base_layer.weight" in name]
    assert {p.data_ptr() for p in shared} <= {p.data_ptr() for p in base.model.parameters()}
    set_adapter_weights(other, trained_state(model))
    with torch.inference_mode():
        model.eval()(**batch())
    for again in (model.train(), other):
        found, same = loss_and_gradient(again)
        assert found == loss
        assert torch.equal(same, gradient)


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_de_quantised_and_merged_it_predicts_the_same(
    family: str, kind: Quantize, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """Also when transformers reads it back: nothing in it speaks of bitsandbytes."""
    from transformers import AutoModelForSequenceClassification

    model = moved(build_classifier(loaded(tiny_base(family), kind), CHOSEN, 0, FP32)).eval()
    base = loaded(tiny_base(family), kind)
    plain = LoadedBase(base.base, dequantize(base.model), base.missing)
    assert list(quantized_layers(plain.model)) == []
    other = build_classifier(plain, CHOSEN, 0, FP32)
    set_adapter_weights(other, trained_state(model))
    merged: Any = merge_adapter(other)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    with torch.inference_mode():
        expected, found = (one(**batch()).logits for one in (model, again))
    # On a CPU, int8 quantises the inputs, too, but only in evaluation.
    largest = float(expected.abs().max())
    tolerance = 1e-5 if kind == "nf4" else module.INT8_TOLERANCE
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(1.0, largest))


@needs_bitsandbytes
def test_a_trial_on_four_bits_learns_and_counts_what_the_weights_stand_for(
    tiny_base: Callable[[str], Path],
) -> None:
    base, plain = loaded(tiny_base("bert"), "nf4"), loaded(tiny_base("bert"), None)
    assert base.parameters == plain.parameters
    model = build_classifier(base, CHOSEN, 0, FP32)
    assert model_parameters(model) == model_parameters(build_classifier(plain, CHOSEN, 0, FP32))
    names = resolve_target_modules(base.model, "bert", "all-linear")
    assert adapter_size(base.model, names, 4) == adapter_size(plain.model, names, 4)
    texts = dataset(typed=False)
    packed, whole = measure_row(base, texts.train), measure_row(plain, texts.train)
    assert packed.base < whole.base
    assert packed.row > 0.5 * whole.row
    frozen = [p.clone() for p in base.model.parameters()]
    state = TrainingState.start(model, CHOSEN, FP32)
    training = settings(epochs=4, evaluations_per_epoch=1, quantize="nf4")
    losses = [evaluation.train_loss for evaluation in fine_tune(state, texts, CHOSEN, training)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(*pair) for pair in zip(base.model.parameters(), frozen, strict=True))


@needs_bitsandbytes
def test_full_fine_tuning_is_refused(tiny_base: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=r"method full: trains all weights, .* are stored in nf4"):
        build_classifier(loaded(tiny_base("bert"), "nf4"), hyperparameters(method="full"), 0, FP32)


@pytest.mark.parametrize("family", ["bert", "distilbert", "qwen3"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_layers_computed_again_give_the_same_gradient(
    family: str, method: str, tiny_base: Callable[[str], Path]
) -> None:
    base, chosen = loaded(tiny_base(family), None), hyperparameters(method=method, base_dropout=0.0)
    kept, again = (build_classifier(base, chosen, 0, FP32, checkpointing=flag) for flag in (False, True))
    calls = {"kept": 0, "again": 0}

    def counted(model: nn.Module, key: str) -> None:
        norms = [part for part in model.modules() if "norm" in type(part).__name__.lower()]
        norms[1].register_forward_hook(lambda *_: calls.update({key: calls[key] + 1}))

    counted(kept, "kept")
    counted(again, "again")
    loss, gradient = loss_and_gradient(kept)
    found, same = loss_and_gradient(again)
    assert found == loss
    torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-7)
    assert calls["again"] > calls["kept"]
    assert again.is_gradient_checkpointing  # type: ignore[union-attr]


@pytest.mark.parametrize("quantize", [None, "nf4"])
def test_frozen_layers_below_the_adapter_are_not_computed_again(
    quantize: Quantize | None, tiny_base: Callable[[str], Path]
) -> None:
    """Nothing below the first adapted layer has a gradient."""
    model = build_classifier(
        loaded(tiny_base("bert"), quantize), hyperparameters(layers="upper-half"), 0, FP32, checkpointing=True
    )
    calls = [0, 0]
    for number in (0, 1):
        layer = model.get_submodule(f"base_model.model.bert.encoder.layer.{number}.attention")

        def count(*_: object, number: int = number) -> None:
            calls[number] += 1

        layer.register_forward_hook(count)
    loss_and_gradient(model)
    assert calls == [1, 2]


def test_what_is_missing_or_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(call: Callable[[], object]) -> str:
        with pytest.raises(LorasweepError) as refused:
            call()
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def broken(kind: str, device: str) -> None:
        raise NotImplementedError("no kernel\nfor this")

    with monkeypatch.context() as patch:
        patch.setattr(module.importlib.util, "find_spec", lambda name: None)
        told = refusal(lambda: check_kernels("nf4", "cpu"))
        assert "(bitsandbytes); run: pip install -e '.[quantized]'" in told
    monkeypatch.setattr(module, "check_package", lambda kind: None)
    monkeypatch.setattr(module, "try_kernels", broken)
    told = refusal(lambda: check_kernels("int8", "cpu"))
    assert told.startswith("--quantize int8: bitsandbytes cannot run it on this CPU (no kernel)")
    with pytest.raises(ModelError, match=r"config.json: quantize 'fp1' is not known; it is one of nf4, int8"):
        quantize_of({"quantize": "fp1"}, "config.json")
    assert (quantize_of({}, ""), quantize_of({"quantize": "int8"}, "")) == (None, "int8")


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_are_tried_in_a_process_that_ends(kind: Quantize, monkeypatch: pytest.MonkeyPatch) -> None:
    """That process is this one here: a new one takes seconds to import torch."""

    def run(arguments: list[str], **options: Any) -> Any:
        try:
            exec(arguments[2], {})
        except Exception as error:
            return SimpleNamespace(returncode=1, stderr=f"Traceback\n{error}\n")
        return SimpleNamespace(returncode=0, stderr="a warning\n")

    monkeypatch.setattr(module.subprocess, "run", run)
    check_kernels(kind, "cpu")
    check_kernels(kind, "cpu", apart=True)
    with pytest.raises(SettingsError, match=r"cannot run it on this CPU \(.+\)"):
        check_kernels(kind, "nowhere", apart=True)
