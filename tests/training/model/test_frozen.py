"""The base model's frozen tensors on another device: once, and linear weights in the AMP type alone.

torch's `meta` device, which computes nothing, stands for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_bases import FAMILIES
from tiny_trials import CPU, FP32, copies, hyperparameters, loaded, same
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.precision import AmpPolicy

GPU = torch.device("meta")
BF16, GPU_BF16, GPU_FP32 = AmpPolicy("bf16", CPU), AmpPolicy("bf16", GPU), AmpPolicy("fp32", GPU)


def frozen(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if not p.requires_grad}


def shared(left: nn.Module, right: nn.Module) -> bool:
    """Whether every frozen tensor of both is the same object."""
    ours, theirs = frozen(left), frozen(right)
    return ours.keys() == theirs.keys() and all(ours[name] is theirs[name] for name in ours)


@pytest.mark.parametrize("family", [name for name in FAMILIES if not MODEL_FAMILIES[name].fp32_only])
def test_a_gpu_holds_the_base_once_and_in_its_type(tiny_base: Callable[[str], Path], family: str) -> None:
    base = loaded(tiny_base(family))
    before = copies(base.model)
    first, second = (build_classifier(base, hyperparameters(rank=rank), 0, GPU_BF16) for rank in (2, 4))
    assert {tensor.device for tensor in (*first.parameters(), *first.buffers())} == {GPU}
    linears = [module for module in first.modules() if type(module) in (nn.Linear, Conv1D)]
    weights = [p for module in linears for p in module.parameters(recurse=False) if not p.requires_grad]
    assert {p.dtype for p in weights} == {torch.bfloat16}
    rest = [p for p in first.parameters() if p.requires_grad or all(p is not weight for weight in weights)]
    assert {p.dtype for p in rest} == {torch.float32}
    assert shared(first, second)
    # What stays where it was loaded is the fp32 model, for DoRA and full fine-tuning.
    assert same(before, copies(base.model))
    assert {p.device for p in base.model.parameters()} == {CPU}


def test_dora_has_fp32_weights_there_and_full_its_own(tiny_base: Callable[[str], Path]) -> None:
    base = loaded(tiny_base("bert"))
    before = copies(base.model)
    for method in ("dora", "full"):
        models = [build_classifier(base, hyperparameters(method=method), 0, GPU_BF16) for _ in range(2)]
        for model in models:
            assert {tensor.device for tensor in (*model.parameters(), *model.buffers())} == {GPU}
            assert {p.dtype for p in model.parameters()} == {torch.float32}
        if method == "dora":
            assert shared(*models)
        else:
            assert not frozen(models[0])
            assert all(
                p is not q for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True)
            )
    assert same(before, copies(base.model))


def test_only_what_the_last_trial_needs_is_kept(tiny_base: Callable[[str], Path]) -> None:
    base = loaded(tiny_base("bert"))
    lora, dora, full = (hyperparameters(method=method) for method in ("lora", "dora", "full"))
    kept: list[set[torch.dtype]] = []
    for chosen, amp in (
        (lora, GPU_BF16),
        (dora, GPU_BF16),
        (lora, GPU_FP32),
        (lora, GPU_BF16),
        (full, GPU_BF16),
    ):
        build_classifier(base, chosen, 0, amp)
        kept.append({form.dtype for _, form in base.frozen._made.values()})
    both = {torch.float32, torch.bfloat16}  # embeddings and norms stay in fp32
    assert kept == [both, {torch.float32}, {torch.float32}, both, set()]


def test_a_copy_for_full_fine_tuning_has_the_bases_values(tiny_base: Callable[[str], Path]) -> None:
    base = loaded(tiny_base("bert"))
    assert same(copies(build_classifier(base, hyperparameters(method="full"), 0, FP32)), copies(base.model))


def test_a_process_casts_the_base_once(tiny_base: Callable[[str], Path]) -> None:
    base = loaded(tiny_base("bert"))
    first, second = (build_classifier(base, hyperparameters(), seed, BF16) for seed in (0, 1))
    assert shared(first, second)
    for name, weight in frozen(first).items():
        own = name.replace("base_model.model.", "").replace(".base_layer", "").replace("original_module.", "")
        assert torch.equal(weight, base.model.get_parameter(own).to(weight.dtype)), name
