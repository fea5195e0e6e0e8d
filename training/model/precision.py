"""The AMP policy: which type the matrix products run in, and how gradients are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorasweep.training.amp_types import AMP_TYPES, Precision
from lorasweep.training.devices import Card
from lorasweep.training.errors import SettingsError
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.target_modules import is_conv1d


@dataclass(frozen=True)
class AmpPolicy:
    """A resolved precision on a device: one of `AMP_TYPES`, never `auto`."""

    name: Precision
    device: torch.device

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of the matrix products, or None where everything stays in fp32."""
        name = AMP_TYPES[self.name].dtype
        return None if name is None else getattr(torch, name)

    @property
    def in_hardware(self) -> bool:
        """Whether the device multiplies this type natively; emulated it is slower than fp32."""
        return AMP_TYPES[self.name].in_hardware(self.device, ())

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which a forward pass runs; weights that train stay in fp32 outside it."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Gradient scaler for a type that needs one; disabled, and without any effect, for the others."""
        return torch.amp.GradScaler(self.device.type, enabled=AMP_TYPES[self.name].scaled)


def resolve_precision(
    precision: Precision, device: torch.device, model_type: str = "", workers: Sequence[Card] = ()
) -> AmpPolicy:
    """Resolve `auto` for a device and a model type, and refuse what they cannot do.

    `auto` is the first of `AMP_TYPES` that the device has in hardware: bf16, else fp16 with a gradient scaler
    on CUDA, else fp32; and fp32 for a model type whose code does not run under autocast.

    Args:
        workers: GPUs of other processes for which `device` stands; all of them must have what `auto` becomes.

    Raises:
        SettingsError: fp16 on a CPU, or bf16 or fp16 for a model type that runs in fp32 only.
    """
    if precision != "auto" and AMP_TYPES[precision].needs_gpu and device.type == "cpu":
        *others, last = ["auto", *(name for name, amp_type in AMP_TYPES.items() if not amp_type.needs_gpu)]
        raise SettingsError(
            f"precision {precision} needs a GPU, and this trial runs on a CPU: use {', '.join(others)} or {last}"
        )
    family = MODEL_FAMILIES.get(model_type)
    if family is not None and family.fp32_only:
        if precision not in ("auto", "fp32"):
            raise SettingsError(
                f"precision {precision}: models of type {model_type} run in fp32 only: use auto or fp32"
            )
        return AmpPolicy("fp32", device)
    if precision != "auto":
        return AmpPolicy(precision, device)
    return next(
        AmpPolicy(name, device) for name, kind in AMP_TYPES.items() if kind.in_hardware(device, workers)
    )


def cast_frozen_linears(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Keep the frozen linear weights in the AMP type, in place; None changes nothing.

    New `Parameter` objects are made, so that a base model which shares its tensors stays in fp32.
    """
    if dtype is None:
        return
    for module in model.modules():
        if is_frozen_linear(module):
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))


def is_frozen_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, of no subclass, or GPT-2's form of one, that is not trained."""
    linear = type(module) is nn.Linear or is_conv1d(module)
    return linear and not any(p.requires_grad for p in module.parameters(recurse=False))
