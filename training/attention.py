"""Attention in fp32 where a processor's bf16 kernel is the slower one.

torch's fused attention for CPUs takes 8 to 25 times as long for its backward pass in bf16 as in fp32 (torch 2.13;
12 heads of 32, batches of 32, 16 to 96 tokens), so that it takes half of a training step. The products around it
stay in bf16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.precision import AmpPolicy

NAME = "lorasweep_fp32"


def speed_up_attention(model: nn.Module, amp: AmpPolicy) -> None:
    """Let a model's fused attention run in fp32 on a CPU under bf16; elsewhere nothing is changed.

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
    """Transformers' own fused attention, on fp32 copies of its inputs: each of shape (rows, heads, tokens, width)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast("cpu", enabled=False):
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), attention_mask, **options
        )
    return attended
