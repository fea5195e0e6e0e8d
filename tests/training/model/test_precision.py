"""The AMP policy, and frozen weights in its type that give the same numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda
from tiny_bases import FAMILIES
from tiny_trials import CPU, copies, dataset, hyperparameters, loaded, same, settings, start, texts
from torch import nn

from lorasweep.training.amp_types import AMP_TYPES, Precision, bf16_in_hardware
from lorasweep.training.devices import Card
from lorasweep.training.errors import SettingsError
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.faster.attention import speed_up_attention
from lorasweep.training.model.precision import AmpPolicy, resolve_precision

BF16 = AmpPolicy("bf16", CPU)


class TestResolve:
    @pytest.mark.parametrize(("in_hardware", "expected"), [(True, "bf16"), (False, "fp32")])
    def test_auto_on_a_cpu(
        self, monkeypatch: pytest.MonkeyPatch, in_hardware: bool, expected: Precision
    ) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: in_hardware)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert resolve_precision("auto", CPU) == AmpPolicy(expected, CPU)

    def test_auto_on_this_cpu(self) -> None:
        assert resolve_precision("auto", CPU).name == ("bf16" if bf16_in_hardware(CPU) else "fp32")

    @pytest.mark.parametrize(
        ("capability", "expected"), [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
    )
    def test_auto_on_a_gpu(
        self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: Precision
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        gpu = torch.device("cuda", 0)
        assert resolve_precision("auto", gpu) == AmpPolicy(expected, gpu)

    @pytest.mark.parametrize(
        ("capabilities", "expected"), [([(9, 0), (8, 0)], "bf16"), ([(9, 0), (7, 5)], "fp16")]
    )
    def test_auto_is_what_all_workers_have(
        self, gpus: FakeCuda, capabilities: list[tuple[int, int]], expected: Precision
    ) -> None:
        """Whatever this process has: a cluster's driver often has no GPU at all."""
        workers, gpu = [Card("a GPU", capability, 2**34) for capability in capabilities], torch.device("cuda")
        for _ in range(2):
            assert resolve_precision("auto", gpu, workers=workers) == AmpPolicy(expected, gpu)
            assert resolve_precision("fp16", gpu, workers=workers).name == "fp16"
            assert resolve_precision("auto", gpu, "deberta", workers).name == "fp32"
            gpus.add("another", (8, 6))

    def test_fp16_on_a_cpu_is_refused(self) -> None:
        with pytest.raises(SettingsError, match=r"fp16 needs a GPU.*use auto, bf16 or fp32") as caught:
            resolve_precision("fp16", CPU)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", None)])
    def test_what_is_asked_for_is_obeyed(self, name: Precision, dtype: torch.dtype | None) -> None:
        policy = resolve_precision(name, CPU)
        assert (policy.name, policy.dtype) == (name, dtype)
        assert not policy.grad_scaler().is_enabled()

    def test_every_type_has_its_name_in_the_settings(self) -> None:
        assert set(get_args(Precision)) == {"auto", *AMP_TYPES}

    def test_a_model_type_that_fails_under_autocast_stays_in_fp32(self) -> None:
        for precision in ("auto", "fp32"):
            assert resolve_precision(precision, CPU, "deberta").name == "fp32"
        with pytest.raises(SettingsError, match="models of type deberta run in fp32 only"):
            resolve_precision("bf16", CPU, "deberta")
        assert resolve_precision("bf16", CPU, "deberta-v2").name == "bf16"

    def test_autocast_runs_products_in_the_policys_type(self) -> None:
        matrix = torch.ones(2, 2)
        with BF16.autocast():
            assert (matrix @ matrix).dtype == torch.bfloat16
        with AmpPolicy("fp32", CPU).autocast():
            assert (matrix @ matrix).dtype == torch.float32


@pytest.mark.parametrize("method", ["lora", "rslora"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if not MODEL_FAMILIES[name].fp32_only])
def test_frozen_weights_in_bf16_change_no_bit(
    tiny_base: Callable[[str], Path], family: str, method: str
) -> None:
    base = loaded(tiny_base(family))
    chosen = hyperparameters(method=method)
    stored = build_classifier(base, chosen, 0, BF16)
    plain = build_classifier(base, chosen, 0, AmpPolicy("fp32", CPU))
    speed_up_attention(plain, BF16)  # which is another matter
    inputs = texts(12, typed=family in ("bert", "electra")).batch(np.arange(12), CPU)
    for model in (stored, plain):
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight.data, std=0.1)
        with BF16.autocast():
            model(**inputs).logits.float().logsumexp(1).sum().backward()
    with BF16.autocast():
        assert torch.equal(stored(**inputs).logits, plain(**inputs).logits)
    gradients = {name: p.grad for name, p in plain.named_parameters() if p.requires_grad}
    assert any("lora_A" in name and gradient.abs().max() > 0 for name, gradient in gradients.items())
    for name, parameter in stored.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, gradients[name]), name


def test_types_of_stored_weights(tiny_base: Callable[[str], Path]) -> None:
    base = loaded(tiny_base("bert"))
    before = copies(base.model)
    model = build_classifier(base, hyperparameters(), 0, BF16)
    frozen_linears = [
        p
        for module in model.modules()
        if type(module) is nn.Linear
        for p in module.parameters()
        if not p.requires_grad
    ]
    # Two layers of six, the pooler and the frozen copy of the head that PEFT keeps: weight and bias each.
    assert len(frozen_linears) == 2 * (2 * 6 + 1 + 1)
    assert {p.dtype for p in frozen_linears} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    others = [module for module in model.modules() if isinstance(module, (nn.Embedding, nn.LayerNorm))]
    assert {p.dtype for module in others for p in module.parameters()} == {torch.float32}
    assert same(before, copies(base.model))


def test_dora_and_full_keep_fp32_weights(tiny_base: Callable[[str], Path]) -> None:
    base = loaded(tiny_base("bert"))
    for method in ("dora", "full"):
        model = build_classifier(base, hyperparameters(method=method), 0, BF16)
        assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_trains_in_bf16(tiny_base: Callable[[str], Path], method: str) -> None:
    base = loaded(tiny_base("bert"))
    before = copies(base.model)
    chosen = hyperparameters(
        method=method, learning_rate=3e-3 if method == "full" else 1e-2, base_dropout=0.0
    )
    state = start(base, chosen, "bf16")
    evaluations = list(fine_tune(state, dataset(120), chosen, settings(epochs=3)))
    assert evaluations[-1].train_loss < 0.7 * evaluations[0].train_loss
    assert {p.dtype for p in state.model.parameters() if p.requires_grad} == {torch.float32}
    assert same(before, copies(base.model))
