"""How much memory of a device a trial takes, estimated before it is trained.

What the layers keep for the backward pass is measured on the longest row, on the CPU and in fp32, which works for every
architecture; the rest is counted. A trial that needs more all the same computes its batches in smaller parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.quantized import quantized_layers
from lorasweep.training.model.target_modules import is_conv1d
from lorasweep.training.settings import Method

FP32 = 4
# Of a trained number: itself, its gradient and AdamW's two moments.
TRAINED = 4 * FP32
# What is kept for the backward pass in AMP, as a share of that in fp32: norms and the residual sums stay in fp32.
# Measured 0.5 to 0.6 with an adapter, and up to 0.68 in full fine-tuning.
AMP_SHARE = 0.65
# DoRA computes each adapted layer's output twice. Measured 1.5 to 1.9.
DORA_TIMES = 2.0
# For the work of one layer, batches of evaluation, and what the allocator cannot use.
SPARE = 1.3


@dataclass(frozen=True)
class RowMemory:
    """What one row of the longest length takes, and the base model itself; in bytes, in fp32.

    Attributes:
        row: kept for the backward pass.
        base: all weights.
        linears: those of the linear layers, which a trial with an adapter keeps in the AMP type unless they are
            quantised.
    """

    row: int
    base: int
    linears: int


def measure_row(loaded: LoadedBase, texts: EncodedTexts) -> RowMemory:
    """Run the longest row through a base model on the CPU, and count what is kept for a backward pass.

    Raises:
        RuntimeError: or whatever else the model's code raises.
    """
    model: Any = loaded.model
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other one gets its address
        return tensor

    texts = texts.windows  # never more of them at once than a batch has rows
    longest = np.array([texts.lengths.argmax()])
    frozen = [
        parameter
        for parameter in model.parameters()
        if not parameter.requires_grad and parameter.is_floating_point()
    ]
    # An adapter keeps a quantised layer's input, which the layer itself does not.
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: (keep(inputs[0]), None)[1])
        for module in quantized_layers(model)
    ]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(**texts.batch(longest, next(model.parameters()).device))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for hook in hooks:
            hook.remove()
    linears = sum(
        module.weight.numel()
        for module in model.modules()
        if (isinstance(module, nn.Linear) and module.weight.is_floating_point()) or is_conv1d(module)
    )
    return RowMemory(
        row=sum(storage.nbytes() for storage in kept.values()),
        base=sum(parameter.nbytes for parameter in model.parameters()),
        linears=FP32 * linears,
    )


def trial_bytes(
    measured: RowMemory, method: Method, rows: int, adapter: int, amp: AmpPolicy, own: int = 0
) -> int:
    """Bytes that a trial allocates on its device, at most and about.

    Args:
        rows: of a batch on the device at once.
        adapter: trained numbers of the adapter and the head; not used for the method `full`.
        own: frozen numbers that the trial has for itself, beside those of the base; not used for the method `full`.
    """
    width = FP32 if amp.dtype is None else amp.dtype.itemsize
    in_amp = width / FP32
    cast = 0.0 if amp.dtype is None else in_amp
    if method == "full":
        weights = measured.base / FP32 * TRAINED + measured.base * cast
    elif method == "dora":
        weights = measured.base + measured.linears * cast
    else:
        weights = measured.base - measured.linears * (1 - in_amp)
    if method != "full":
        weights += adapter * (TRAINED + (0 if amp.dtype is None else width))
        weights += own * (FP32 if method == "dora" else width)
    row = measured.row * (1.0 if amp.dtype is None else AMP_SHARE)
    return int(SPARE * (weights + rows * row * (DORA_TIMES if method == "dora" else 1.0)))


def adapter_size(model: nn.Module, target_modules: Sequence[str], rank: int) -> int:
    """Trained numbers of an adapter: A of (rank, inputs) and B of (outputs, rank) for each of its layers."""
    layers: list[Any] = [model.get_submodule(name) for name in target_modules]
    # The weights of a quantised layer are packed.
    shapes = (
        (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else layer.weight.shape
        for layer in layers
    )
    return sum(rank * sum(shape) for shape in shapes)
