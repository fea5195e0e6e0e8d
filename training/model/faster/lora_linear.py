"""LoRA on a linear layer with less work around its matrix products.

PEFT's forward pass casts the input to fp32 and back, and stores the update, its scaled copy and the sum as separate
tensors; for a small encoder that is a tenth of a step. Here the products add the update themselves, forward and
backward. The module and its parameters stay PEFT's, so saving, loading and merging do not change.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn

from lorasweep.training.devices import is_out_of_memory
from lorasweep.training.model.faster.flat_view import flat_gradient, in_type

# Attribute of a layer's input that holds its cast to the AMP type.
ROWS = "lorasweep_rows"


def speed_up_lora(model: nn.Module) -> None:
    """Give the plain LoRA layers of a PEFT model the leaner pass, in place; DoRA and others keep PEFT's.

    So do those around anything but a plain linear layer, such as GPT-2's Conv1D with its transposed weight.
    """
    for module in model.modules():
        if type(module) is Linear and not module.lora_variant and type(module.base_layer) is nn.Linear:
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
        rows = _rows(x, dtype)
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
            )
        # Reshaped outside the product, because some models change a layer's output in place.
        return product.view(*x.shape[:-1], -1)


def _rows(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The input as rows of a type; layers that get the same tensor, as query, key and value do, share them.

    Shared, they are cast once, kept once for the backward pass, and cast back once. They live as long as `x`.
    """
    # No share in what may change without a new version: a tensor of the inference mode, a trained parameter.
    if x.dtype == dtype or x.is_inference() or isinstance(x, nn.Parameter):
        return x.reshape(-1, x.shape[-1]).to(dtype)
    key = (dtype, x._version, torch.is_grad_enabled())
    known, rows = getattr(x, ROWS, (None, None))
    if rows is None or known != key:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        setattr(x, ROWS, (key, rows))
    return rows


class LoraProduct(torch.autograd.Function):
    """x·Wᵀ + b + s·d·Aᵀ·Bᵀ and its gradients by x, d, A and B; W and b are frozen.

    Shapes: x and d (tokens, in), W (out, in), b (out) or None, A (r, in), B (out, r). Where d is None it is x.
    If A and B lie in a flat buffer, their gradients are added to the flat gradient right here: a kernel each
    instead of three.
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
    ) -> torch.Tensor:
        """Products in the type of x; returns it in that type, shape (tokens, out)."""
        adapted = x if dropped is None else dropped
        weight, low_a, low_b = weight.to(x.dtype), in_type(a, x.dtype), in_type(b, x.dtype)
        low = adapted @ low_a.t()
        product = x @ weight.t() if bias is None else torch.addmm(bias.to(x.dtype), x, weight.t())
        product.addmm_(low, low_b.t(), alpha=scale)
        ctx.save_for_backward(adapted, weight, low_a, low_b, low)
        ctx.scale, ctx.shared, ctx.parameters = scale, dropped is None, (a, b)
        return product

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients, each in the type of its input; None for A and B where they went into the flat gradient."""
        adapted, weight, low_a, low_b, low = ctx.saved_tensors
        low_grad = grad @ low_b
        by_x = by_dropped = by_a = by_b = None
        if ctx.needs_input_grad[0]:
            by_x = grad @ weight
            if ctx.shared:
                by_x.addmm_(low_grad, low_a, alpha=ctx.scale)
        if ctx.needs_input_grad[1]:
            by_dropped = torch.addmm(adapted, low_grad, low_a, beta=0, alpha=ctx.scale)
        a, b = ctx.parameters
        if ctx.needs_input_grad[4]:
            by_a = _gradient(a, low_grad, adapted, ctx.scale)
        if ctx.needs_input_grad[5]:
            by_b = _gradient(b, low, grad, ctx.scale, transposed=True)
        return by_x, by_dropped, None, None, by_a, by_b, None


def _gradient(
    parameter: torch.Tensor,
    thin: torch.Tensor,
    wide: torch.Tensor,
    scale: float,
    *,
    transposed: bool = False,
) -> torch.Tensor | None:
    """Add scale·thinᵀ·wide to the flat gradient, or return it where there is none.

    The scale multiplies in the parameter's type, fp32: in fp16 the product could overflow.

    Args:
        thin, wide: shapes (tokens, r) and (tokens, features).
        transposed: the parameter has the shape (features, r).
    """
    flat = flat_gradient(parameter)
    gradient = torch.zeros_like(parameter) if flat is None else flat
    into = gradient.t() if transposed else gradient
    if thin.dtype == into.dtype:
        into.addmm_(thin.t(), wide, alpha=scale)
    elif _adds_in_one(into.device, thin.dtype, into.dtype):
        torch.addmm(into, thin.t(), wide, out_dtype=into.dtype, alpha=scale, out=into)
    else:
        into.add_((thin.t() @ wide).to(into.dtype), alpha=scale)
    return gradient if flat is None else None


@cache
def _adds_in_one(device: torch.device, dtype: torch.dtype, into: torch.dtype) -> bool:
    """Whether a product of matrices of one type is added to one of another type in one kernel.

    A CPU cannot do so, nor can every GPU with every build of torch.
    """
    half, sums = (
        torch.zeros(16, 16, dtype=dtype, device=device),
        torch.zeros(16, 16, dtype=into, device=device),
    )
    try:
        torch.addmm(sums, half, half, out_dtype=into, out=sums)
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    return True
