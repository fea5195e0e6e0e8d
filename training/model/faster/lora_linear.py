"""LoRA on a linear layer with less work around its matrix products.

PEFT's forward pass casts the input to fp32 and back, and stores the update, its scaled copy and the sum as separate
tensors; for a small encoder that is a tenth of a step. Here the products add the update themselves, forward and
backward. The module and its parameters stay PEFT's, so saving, loading and merging do not change.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn


def speed_up_lora(model: nn.Module) -> None:
    """Give the plain LoRA layers of a PEFT model the leaner pass, in place; DoRA and others keep PEFT's."""
    for module in model.modules():
        if type(module) is Linear and not module.lora_variant:
            module.__class__ = LeanLinear


class LeanLinear(Linear):
    """PEFT's LoRA layer; with a single active adapter that is not merged, its forward pass is `LoraProduct`."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """x·Wᵀ + b + (alpha / r)·dropout(x)·Aᵀ·Bᵀ, of shape (..., features)."""
        adapters = self.active_adapters
        if len(adapters) != 1 or self.disable_adapters or self.merged or args or kwargs:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        name = adapters[0]
        kind = x.device.type
        # The type that autocast itself would use, so gradients are the same.
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        # Reshaped outside the product, because some models change a layer's output in place.
        rows = x.reshape(-1, x.shape[-1])
        dropped = self.lora_dropout[name](rows)
        with torch.autocast(kind, enabled=False):
            product: torch.Tensor = LoraProduct.apply(  # type: ignore[no-untyped-call]
                rows,
                None if dropped is rows else dropped,
                self.base_layer.weight,
                self.base_layer.bias,
                self.lora_A[name].weight,
                self.lora_B[name].weight,
                self.scaling[name],
                dtype,
            )
        return product.view(*x.shape[:-1], -1)


class LoraProduct(torch.autograd.Function):
    """x·Wᵀ + b + s·d·Aᵀ·Bᵀ and its gradients by x, d, A and B; W and b are frozen.

    Shapes: x and d (tokens, in), W (out, in), b (out) or None, A (r, in), B (out, r). Where d is None it is x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """Products in `dtype`; returns it in that type, shape (tokens, out)."""
        rows = x.to(dtype)
        adapted = rows if dropped is None else dropped.to(dtype)
        weight, scaled = weight.to(dtype), (b * scale).to(dtype)
        # In this memory layout products of thin matrices take about half the time on a CPU.
        a_t = a.t().to(dtype, memory_format=torch.contiguous_format)
        low = adapted @ a_t
        product = rows @ weight.t() if bias is None else torch.addmm(bias.to(dtype), rows, weight.t())
        product.addmm_(low, scaled.t().contiguous())
        ctx.save_for_backward(adapted, weight, a_t, scaled, low)
        ctx.scale, ctx.types = scale, (x.dtype, a.dtype, b.dtype)
        ctx.shared = dropped is None
        return product

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients, each in the type of its input."""
        adapted, weight, a_t, scaled, low = ctx.saved_tensors
        x_type, a_type, b_type = ctx.types
        low_grad = grad @ scaled
        by_x = by_dropped = None
        if ctx.needs_input_grad[0]:
            by_x = grad @ weight
            if ctx.shared:
                by_x.addmm_(low_grad, a_t.t())
            by_x = by_x.to(x_type)
        if ctx.needs_input_grad[1]:
            by_dropped = (low_grad @ a_t.t()).to(x_type)
        by_a = (adapted.t() @ low_grad).t().to(a_type, memory_format=torch.contiguous_format)
        by_b = ((low.t() @ grad).t() * ctx.scale).to(b_type, memory_format=torch.contiguous_format)
        return by_x, by_dropped, None, None, by_a, by_b, None, None
