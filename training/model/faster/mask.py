"""Attention masks made without waiting for the device.

Before transformers makes a mask, it asks whether any token is padded at all (`padding_mask.all()`): the host then
waits until the device has done all that it was told to, once a forward pass, in ModernBERT twice. Who makes a batch
knows the answer and tells it by the mask's strides, which can be read without a wait: see `unpadded`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from lorasweep.training.data.device_texts import is_unpadded

# Our forms of transformers' implementations of attention: the same attention, and masks by the functions below.
SDPA, EAGER = "lorasweep_sdpa", "lorasweep_eager"


def make_masks_without_waiting(model: nn.Module) -> None:
    """Let a transformers model take padding from the batch as given, instead of asking the device.

    Logits and gradients stay the same. Its batches' masks are bool, and made by `unpadded` where nothing is padded;
    all others count as padded. A model that asks for its masks in another way stays as it is.

    Args:
        model: its configuration is changed, so no other model may share it.
    """
    config: Any = getattr(model, "config", None)
    implementation = getattr(config, "_attn_implementation", None)
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if implementation == "sdpa":
        AttentionInterface.register(SDPA, sdpa_attention_forward)
        AttentionMaskInterface.register(SDPA, _sdpa_mask)
        model.set_attn_implementation(SDPA)  # type: ignore[operator]
    elif _names_masks_only(model):
        AttentionMaskInterface.register(EAGER, _eager_mask)
        config._attn_implementation = EAGER


def takes_unpadded(model: nn.Module) -> bool:
    """Whether a model has been through `make_masks_without_waiting` and was changed."""
    return getattr(getattr(model, "config", None), "_attn_implementation", None) in (SDPA, EAGER)


def _names_masks_only(model: nn.Module) -> bool:
    # A model such as MPNet computes attention itself and asks transformers for the mask alone. Others look the
    # attention up by the same name, where "eager" stands for a function of their own.
    code = sys.modules[type(model).__module__]
    return hasattr(code, "create_bidirectional_mask") and not hasattr(code, "ALL_ATTENTION_FUNCTIONS")


def _sdpa_mask(*, attention_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor | None:
    """transformers' `sdpa_mask`, with the same result.

    Args:
        attention_mask: bool, shape (rows, tokens).
        options: of transformers' mask functions.
    """
    from transformers.masking_utils import sdpa_mask

    mask: torch.Tensor | None = sdpa_mask(**_without_question(attention_mask, options))
    return mask


def _eager_mask(*, attention_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor | None:
    """transformers' `eager_mask`, with the same result."""
    from transformers.masking_utils import eager_mask

    mask: torch.Tensor | None = eager_mask(**_without_question(attention_mask, options))
    return mask


def _without_question(attention_mask: torch.Tensor | None, options: dict[str, Any]) -> dict[str, Any]:
    if attention_mask is None or is_unpadded(attention_mask):
        # Without a padding mask transformers decides by shapes and the window alone.
        return options | {"attention_mask": None}
    # Padded: no mask can be left out.
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return options | {"attention_mask": attention_mask} | skips
