"""The lean LoRA layer against PEFT's: the same outputs and gradients in each variant, and it stays PEFT's module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from tiny_trials import CPU, FP32, dataset, hyperparameters, loaded
from torch import nn

from lorasweep.training.loop.flat import FlatParameters
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.faster.lora_linear import LeanLinear, speed_up_lora
from lorasweep.training.model.precision import AmpPolicy, cast_frozen_linears

BF16 = AmpPolicy("bf16", CPU)


def adapted(bias: bool = True, **options: Any) -> nn.Module:
    """Two linear layers with random LoRA matrices, the second layer's input in need of a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40, bias=bias), nn.Tanh(), nn.Linear(40, 16, bias=bias))
    config = LoraConfig(**({"r": 4, "lora_alpha": 6, "target_modules": ["0", "2"]} | options))
    found = get_peft_model(model, config)
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return found


def run(model: nn.Module, amp: AmpPolicy) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    inputs = torch.randn(3, 5, 24, requires_grad=True)
    with amp.autocast():
        output = model(inputs)
    (output.float() ** 2).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert inputs.grad is not None
    return output.detach(), gradients | {"input": inputs.grad}


VARIANTS = {
    "lora": {},
    "without bias": {"bias": False},
    "rslora": {"use_rslora": True},
    "dropout": {"lora_dropout": 0.4},
    "rank 1": {"r": 1},
    "dora": {"use_dora": True},
}


@pytest.mark.parametrize("amp", [FP32, BF16], ids=lambda amp: amp.name)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_pefts(variant: str, amp: AmpPolicy) -> None:
    options: dict[str, Any] = VARIANTS[variant]
    peft = adapted(**({"bias": True} | options)).train()
    if variant != "dora":
        cast_frozen_linears(peft, amp.dtype)
    lean = copy.deepcopy(peft)
    speed_up_lora(lean)
    layers = [type(module) for module in lean.modules() if isinstance(module, Linear)]
    assert layers == [Linear if variant == "dora" else LeanLinear] * 2
    (wanted, by), (found, by_lean) = run(peft, amp), run(lean, amp)
    assert found.dtype == wanted.dtype
    # In fp32 but for the order of sums; in bf16 a rounding more or less in each product.
    tolerance = 1e-5 if amp is FP32 else 0.03
    assert (found.float() - wanted.float()).norm() <= tolerance * wanted.float().norm()
    assert by.keys() == by_lean.keys()
    for name, gradient in by.items():
        assert by_lean[name].dtype == gradient.dtype, name
        assert (by_lean[name] - gradient).norm() <= tolerance * gradient.norm(), name


def test_bf16_is_as_near_to_fp32_as_pefts() -> None:
    exact, peft = adapted().train(), adapted().train()
    cast_frozen_linears(peft, torch.bfloat16)
    lean = copy.deepcopy(peft)
    speed_up_lora(lean)
    (right, by), (theirs, by_theirs), (ours, by_ours) = run(exact, FP32), run(peft, BF16), run(lean, BF16)
    assert (ours - right).norm() <= 1.5 * (theirs - right).norm()
    for name, gradient in by.items():
        assert (by_ours[name] - gradient).norm() <= 1.5 * (by_theirs[name] - gradient).norm() + 1e-6, name


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_transposed_weights_stay_pefts(family: str, tiny_base: Callable[[str], Path]) -> None:
    model = build_classifier(loaded(tiny_base(family)), hyperparameters(), 0, BF16)
    layers = {type(module) for module in model.modules() if isinstance(module, Linear)}
    assert layers == {Linear if family == "gpt2" else LeanLinear}
    assert model.peft_config["default"].fan_in_fan_out == (family == "gpt2")


def test_it_stays_pefts_module(tiny_base: Callable[[str], Path]) -> None:
    """Disabled, merged and unloaded as PEFT's own is, from a copy too."""
    base = loaded(tiny_base("bert"))
    model = build_classifier(base, hyperparameters(), 0, FP32).eval()
    assert any(type(module) is LeanLinear for module in model.modules())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter.data, std=0.1)
    inputs = dataset().test.batch(torch.arange(6).numpy(), CPU)
    with torch.no_grad():
        wanted = model(**inputs).logits
        with model.disable_adapter():
            without = model(**inputs).logits
        merged = copy.deepcopy(model).merge_and_unload()
        assert (wanted - without).abs().max() > 1e-2
        torch.testing.assert_close(merged(**inputs).logits, wanted, rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, Linear) for module in merged.modules())


def test_no_gradient_is_made_that_nobody_reads() -> None:
    """The first layer's input is made by frozen embeddings: its gradient would be a product for nothing."""
    lean = adapted()
    speed_up_lora(lean)
    node = lean(torch.randn(2, 24)).grad_fn
    asked = []
    while node is not None:
        if "LoraProduct" in node.name():
            asked.append(node.needs_input_grad[0])
        node = next((before for before, _ in node.next_functions if before is not None), None)
    assert asked == [True, False]


class Attention(nn.Module):
    """Three layers that read one input, as query, key and value do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(24)
        self.query, self.key, self.value = (nn.Linear(24, 16) for _ in range(3))

    def forward(self, x: torch.Tensor, between: Callable[[torch.Tensor], object] = id) -> torch.Tensor:
        normed = self.norm(x)
        query, key = self.query(normed), self.key(normed)
        between(normed)
        result: torch.Tensor = query * key + self.value(normed)
        return result


def lean_attention() -> tuple[nn.Module, nn.Module]:
    """PEFT's and the lean form of one."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["query", "key", "value"])
    peft = get_peft_model(Attention(), config)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    cast_frozen_linears(peft, torch.bfloat16)
    lean = copy.deepcopy(peft)
    speed_up_lora(lean)
    return peft, lean


class TestSharedInput:
    def test_one_cast_is_kept(self) -> None:
        _, lean = lean_attention()
        kept = set()

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.dtype == torch.bfloat16 and tensor.shape == (15, 24):
                kept.add(tensor.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), BF16.autocast():
            output = lean.train()(torch.randn(3, 5, 24, requires_grad=True))
        assert len(kept) == 1
        output.float().sum().backward()

    def test_gradients_are_pefts(self) -> None:
        peft, lean = lean_attention()
        (wanted, by), (found, by_lean) = run(peft, BF16), run(lean, BF16)
        assert (found - wanted).norm() <= 0.03 * wanted.norm()
        assert by.keys() == by_lean.keys()
        for name, gradient in by.items():
            assert (by_lean[name] - gradient).norm() <= 0.03 * gradient.norm(), name

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_a_change_in_place_is_seen(self, mode: Any) -> None:
        """Without gradients a model may change its tensors as it likes."""
        peft, lean = lean_attention()
        inputs = torch.randn(3, 5, 24)
        with mode(), BF16.autocast():
            wanted, found = (model(inputs, between=lambda x: x.mul_(2.0)) for model in (peft, lean))
        torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.03)


class TestFlatGradient:
    """With its parameters in a flat buffer the layer adds its gradients there."""

    @pytest.mark.parametrize("amp", [FP32, BF16], ids=lambda amp: amp.name)
    @pytest.mark.parametrize("variant", ["lora", "dropout", "rank 1"])
    def test_equal_to_autograds(self, variant: str, amp: AmpPolicy) -> None:
        plain = adapted(**VARIANTS[variant]).train()
        cast_frozen_linears(plain, amp.dtype)
        speed_up_lora(plain)
        lean = copy.deepcopy(plain)
        flat = FlatParameters((p for p in lean.parameters() if p.requires_grad), amp.dtype)
        (wanted, by), (found, by_flat) = run(plain, amp), run(lean, amp)
        assert torch.equal(found, wanted)
        for name, gradient in by.items():
            torch.testing.assert_close(by_flat[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
        assert flat.gradients.count_nonzero() == sum(
            int(gradient.count_nonzero()) for name, gradient in by.items() if name != "input"
        )

    def test_a_layer_used_twice_adds_twice(self) -> None:
        lean = adapted()
        speed_up_lora(lean)
        flat = FlatParameters(p for p in lean.parameters() if p.requires_grad)
        inputs = torch.randn(3, 24)
        lean(inputs).sum().backward()
        once = flat.gradients.clone()
        flat.zero_gradients()
        (lean(inputs) + lean(inputs)).sum().backward()
        torch.testing.assert_close(flat.gradients, 2 * once)

    def test_fp16_is_scaled_in_fp32(self) -> None:
        """alpha / r = 100 takes these gradients beyond fp16's 65,504."""
        lean = adapted(r=1, lora_alpha=100, target_modules=["0"])
        for name, parameter in lean.named_parameters():
            nn.init.constant_(parameter.data, 0.0 if "lora_B" in name else 1.0 if "lora_A" in name else 0.1)
        cast_frozen_linears(lean, torch.float16)
        speed_up_lora(lean)
        layer = next(module for module in lean.modules() if type(module) is LeanLinear)
        with torch.autocast("cpu", torch.float16):
            output = layer(torch.ones(40, 24))
        output.backward(torch.ones_like(output))
        # 40 rows of 24 ones through A, and a gradient of 1 each.
        gradient = layer.lora_B["default"].weight.grad
        torch.testing.assert_close(gradient, torch.full_like(gradient, 100 * 40 * 24.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_flat_gradients_on_a_gpu_are_those_of_a_cpu(dtype: torch.dtype) -> None:
    """There the product of two AMP matrices is written as fp32."""
    gradients = []
    for device in ("cpu", "cuda"):
        lean = adapted().to(device)
        speed_up_lora(lean)
        flat = FlatParameters((p for p in lean.parameters() if p.requires_grad), dtype)
        torch.manual_seed(1)
        inputs = torch.randn(64, 24).to(device)
        with torch.autocast(device, dtype):
            output = lean(inputs)
        (output.float() ** 2).mean().backward()
        gradients.append(flat.gradients.cpu())
    assert (gradients[1] - gradients[0]).norm() <= 0.03 * gradients[0].norm()
