"""Attention on CPUs under bf16, where torch's fused kernel is slow.

Its backward pass takes up to ten times as long in bf16 as in fp32 (torch 2.13; batches of 32, 12 heads of 32).
Plain products in bf16 take half the time of the fp32 kernel for texts of 32 to 128 tokens, and about the same at
256. They store a score for each pair of tokens, so longer texts use the kernel, in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lorasweep.training.model.precision import AmpPolicy

NAME = "lorasweep_cpu"
# Tokens up to which the plain products are used.
PLAIN_TOKENS = 256


def speed_up_attention(model: nn.Module, amp: AmpPolicy) -> None:
    """Give a model the faster attention on a CPU under bf16; otherwise change nothing.

    Args:
        model: a transformers model; its configuration is changed, so no other model may share it.
    """
    if amp.device.type != "cpu" or amp.dtype is not torch.bfloat16:
        return
    config: Any = getattr(model, "config", None)
    # Models with their own attention, such as DeBERTa, have none that can be replaced.
    if getattr(config, "_attn_implementation", None) != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)  # type: ignore[operator]


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention by whichever way is faster for the length of the texts.

    Args:
        query, key, value: shape (rows, heads, tokens, width); the query may have fewer tokens. Rotary positions leave
            query and key in fp32 where autocast has made the value bf16.
        attention_mask: shape (rows, 1, tokens, tokens); boolean, true for tokens to attend to, or a number to
            add to the scores.
        options: of transformers' attention functions.

    Returns:
        Shape (rows, tokens, heads, width).
    """
    # Without a mask transformers leaves it to the kernel that a decoder's token sees none behind it.
    told = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if told is None else told
    causal = causal and attention_mask is None and query.shape[2] > 1
    plain = options.get("position_bias") is None and key.shape[1] == query.shape[1] and not causal
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else value.dtype
    # Autocast would compute the sum with the mask, and so the softmax, in fp32, and run the kernel in bf16.
    with torch.autocast("cpu", enabled=False):
        if plain and key.shape[2] <= PLAIN_TOKENS:
            parts = query.to(dtype), key.to(dtype), value.to(dtype)
            return _products(*parts, attention_mask, options), None
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.float()
        if (bias := options.get("position_bias")) is not None:
            options["position_bias"] = bias.float()
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), attention_mask, **options
        )
        return attended


def _products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    options: dict[str, Any],
) -> torch.Tensor:
    """Softmax(q·kᵀ / sqrt(width) + mask)·v in the inputs' own type."""
    scores = (query * (options.get("scaling") or query.shape[-1] ** -0.5)) @ key.transpose(2, 3)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask.to(scores.dtype)
    shares = scores.softmax(-1)
    if dropout := options.get("dropout"):
        shares = F.dropout(shares, dropout)
    attended: torch.Tensor = shares @ value
    return attended.transpose(1, 2).contiguous()
