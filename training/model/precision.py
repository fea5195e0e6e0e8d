"""The AMP policy: which type the matrix products run in, and how gradients are scaled."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Precision

# NVIDIA's compute capability from which bf16 runs in hardware (Ampere). Below it PyTorch emulates it.
BF16_CAPABILITY = (8, 0)

# The first DeBERTa's attention in transformers 5 fills masked scores with fp32's minimum although autocast
# has made them bf16 or fp16, and stops with an overflow. DeBERTa-v2 and -v3 do not.
FP32_ONLY = ("deberta",)

AMP_DTYPES: dict[Precision, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class AmpPolicy:
    """A resolved precision on a device: `bf16`, `fp16` or `fp32`, never `auto`."""

    name: Precision
    device: torch.device

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of the matrix products, or None where everything stays in fp32."""
        return AMP_DTYPES[self.name]

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which a forward pass runs; weights that train stay in fp32 outside it."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Gradient scaler for fp16; disabled, and then without any effect, for the others.

        fp16 has 5 bits of exponent, so small gradients vanish unless the loss is scaled up
        (Micikevicius et al., "Mixed Precision Training", 2018). bf16 has fp32's range.
        """
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def bf16_in_hardware(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices natively; emulation is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def resolve_precision(precision: Precision, device: torch.device, model_type: str = "") -> AmpPolicy:
    """Resolve `auto` for a device and a model type, and refuse what they cannot do.

    `auto` is bf16 where the device has it in hardware, else fp16 with a gradient scaler on CUDA,
    else fp32; and fp32 for a model type whose code does not run under autocast.

    Raises:
        SettingsError: fp16 was asked for on a device that is not a GPU, or bf16 or fp16 for a model type
            that knows fp32 only.
    """
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError(
            "precision fp16 needs a GPU, and this trial runs on a CPU: use auto, bf16 or fp32"
        )
    if model_type in FP32_ONLY:
        if precision not in ("auto", "fp32"):
            raise SettingsError(
                f"precision {precision}: models of type {model_type} run in fp32 only: use auto or fp32"
            )
        return AmpPolicy("fp32", device)
    if precision != "auto":
        return AmpPolicy(precision, device)
    if bf16_in_hardware(device):
        return AmpPolicy("bf16", device)
    return AmpPolicy("fp16" if device.type == "cuda" else "fp32", device)


def cast_frozen_linears(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Keep the frozen linear weights in the AMP type, in place.

    Autocast casts a frozen fp32 weight anew in each forward pass; it caches only weights that
    need a gradient. Stored in the AMP type they give the same numbers without that work. New
    `Parameter` objects are made, so that a base model which shares its tensors stays in fp32.
    """
    if dtype is None:
        return
    for module in model.modules():
        if type(module) is nn.Linear and not any(p.requires_grad for p in module.parameters(recurse=False)):
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
