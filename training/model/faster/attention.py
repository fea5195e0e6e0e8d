"""Attention on CPUs under bf16, where torch's fused kernel is the slower one.

That kernel takes up to ten times as long for its backward pass in bf16 as in fp32 (torch 2.13; batches of 32, 12
heads of 32). Plain products in bf16 take half of the fp32 kernel's time for texts of 32 to 128 tokens, and at 256
about the same; they hold a score for each pair of tokens, so longer texts go to the kernel, in fp32.
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
    """Let a model's attention take the faster way on a CPU under bf16; elsewhere nothing is changed.

    Args:
        model: a transformers model; its configuration is changed, so it must be the model's own.
    """
    if amp.device.type != "cpu" or amp.dtype is not torch.bfloat16:
        return
    config: Any = getattr(model, "config", None)
    # Models with an attention of their own kind, such as DeBERTa, have none that could be replaced.
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
    """Attention by the faster way for the texts' length.

    Args:
        query, key, value: shape (rows, heads, tokens, width); the query may have fewer tokens.
        attention_mask: boolean, true where a token is read, or added to the scores; (rows, 1, tokens, tokens).
        options: of transformers' attention functions.

    Returns:
        Shape (rows, tokens, heads, width).
    """
    plain = options.get("position_bias") is None and key.shape[1] == query.shape[1]
    # Autocast would take the mask's sum, and with it the softmax, to fp32; and the fused kernel back to bf16.
    with torch.autocast("cpu", enabled=False):
        if plain and key.shape[2] <= PLAIN_TOKENS:
            return _products(query, key, value, attention_mask, options), None
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.float()
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
