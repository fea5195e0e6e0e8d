"""PiSSA and OLoRA: adapters that begin as the largest part of the base weight instead of as no update.

The trained matrices begin as B₀ and A₀ with W = R + s·B₀·A₀, and the frozen weight becomes R: PiSSA takes the largest
singular values (Meng et al., "PiSSA", 2024), OLoRA the first columns of a QR decomposition (Büyükakyüz, "OLoRA", 2024).
As in PEFT, but its own code changes the base weights in place, which all trials of a process share.

What is saved is a plain LoRA adapter of twice the rank on the unchanged base: s·B·A − s·B₀·A₀ = s·[B, −B₀]·[A; A₀]. So
a checkpoint does not depend on a decomposition being repeated, and an export is one that plain PEFT loads, merges and
serves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lorasweep.training.errors import ModelError
from lorasweep.training.settings import Init

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lorasweep.training.model.base_model import LoadedBase

ADAPTER = "default"
# Attribute of a layer with A₀, B₀ and the base's own weight W.
INITIAL = "lorasweep_initial"
# Rank up to which a decomposition is kept, or the one that was asked for: the next trial may want another.
KEPT = 64


def begin_from_base(classifier: nn.Module, loaded: LoadedBase, init: Init) -> None:
    """Let all adapters of a PEFT model begin as a part of the base weights, which are replaced in this model alone.

    Args:
        classifier: on its device, with frozen weights in their type; its adapters are fresh.
        loaded: the base model, with the weights in fp32, which do not change; it keeps the decompositions for the next
            trial.

    Raises:
        ModelError: a rank is larger than a layer, or its weight is quantised.
    """
    for name, layer in _adapted(classifier):
        module = name.removeprefix("base_model.model.")
        parameter: Any = loaded.model.get_submodule(module).weight
        if not parameter.is_floating_point():
            raise ModelError(
                f"init: {init} needs the weights themselves, and {module} is quantised; use default"
            )
        weight, rank = parameter.detach(), int(layer.r[ADAPTER])
        if rank > min(weight.shape):
            raise ModelError(
                f"init: {init} takes rank {rank} out of {module}, which has only {min(weight.shape)}; lower rank, "
                "or use init: default"
            )
        known = loaded.decomposed.get((module, init))
        if known is None or len(known[0]) < rank:
            known = _decompose(weight.t() if layer.fan_in_fan_out else weight, max(rank, KEPT), init)
            loaded.decomposed[module, init] = known
        # PiSSA's product is the same whatever the scale; as in PEFT, OLoRA's grows with it.
        shrink = math.sqrt(float(layer.scaling[ADAPTER])) if init == "pissa" else 1.0
        a, b = known[0][:rank] / shrink, known[1][:, :rank] / shrink
        with torch.no_grad():
            layer.lora_A[ADAPTER].weight.copy_(a)
            layer.lora_B[ADAPTER].weight.copy_(b)
        _take_out(layer, weight, a, b)


def plain_form(
    model: Any, weights: dict[str, torch.Tensor], config: Any
) -> tuple[dict[str, torch.Tensor], Any]:
    """The weights and configuration of a PEFT model, as a plain LoRA adapter on the unchanged base.

    Args:
        weights: of the model, by PEFT's names.
        config: the model's `LoraConfig`, of which a changed copy is returned.

    Returns:
        Both as they are, for a model whose adapters began as no update.
    """
    begun = list(_begun(model))
    if not begun:
        return weights, config
    weights = dict(weights)
    for name, layer in begun:
        a, b, _ = getattr(layer, INITIAL)
        for key, half, dim in ((f"{name}.lora_A.weight", a, 0), (f"{name}.lora_B.weight", -b, 1)):
            weights[key] = torch.cat([weights[key].detach(), half.to(weights[key].device)], dim)
    # Twice the rank with the same scale, which rsLoRA divides by the root of the rank.
    times = math.sqrt(2) if config.use_rslora else 2
    config.r = 2 * config.r
    config.lora_alpha = times * config.lora_alpha
    config.rank_pattern = {key: 2 * rank for key, rank in (config.rank_pattern or {}).items()}
    config.alpha_pattern = {key: times * alpha for key, alpha in (config.alpha_pattern or {}).items()}
    return weights, config


def from_plain_form(model: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take apart what `plain_form` put together; the model's frozen weights become those that were trained on.

    Args:
        weights: by PEFT's names.

    Returns:
        The trained weights, by PEFT's names; as they are, for a model whose adapters began as no update.

    Raises:
        ValueError: they are of another rank.
    """
    weights = dict(weights)
    for name, layer in _begun(model):
        rank = int(layer.r[ADAPTER])
        a, b = (weights.get(f"{name}.{half}.weight") for half in ("lora_A", "lora_B"))
        if a is None or b is None or a.shape[0] != 2 * rank or b.shape[1] != 2 * rank:
            raise ValueError(f"the weights lack {name} with rank {2 * rank}")
        weights |= {f"{name}.lora_A.weight": a[:rank], f"{name}.lora_B.weight": b[:, :rank]}
        _take_out(layer, getattr(layer, INITIAL)[2], a[rank:], -b[:, rank:])
    return weights


def _decompose(weight: torch.Tensor, rank: int, init: Init) -> tuple[torch.Tensor, torch.Tensor]:
    """A₀ of shape (rank, inputs) and B₀ of shape (outputs, rank), for a scale of 1; fewer where the layer is smaller.

    Args:
        weight: of shape (outputs, inputs).
    """
    if init == "pissa":
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        root = values[:rank].sqrt()
        return root[:, None] * right[:rank], left[:, :rank] * root
    orthogonal, triangular = torch.linalg.qr(weight)
    return triangular[:rank].clone(), orthogonal[:, :rank].clone()


def _take_out(layer: Any, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Give a layer the frozen weight without s·B₀·A₀, and let it know these."""
    update = float(layer.scaling[ADAPTER]) * (b @ a)
    update = update.to(weight.device)
    rest = weight - (update.t() if layer.fan_in_fan_out else update)
    old = layer.base_layer.weight
    # A new parameter: the old one belongs to the base, too.
    layer.base_layer.weight = nn.Parameter(rest.to(old.device, old.dtype), requires_grad=False)
    setattr(layer, INITIAL, (a.clone(), b.clone(), weight))


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _begun(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in _adapted(model):
        if hasattr(module, INITIAL):
            yield name, module
