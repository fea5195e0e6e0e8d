"""The last layer computed for the first token alone, which is all that the head reads.

That token's attention needs the keys and values of every token, but the query, the feed-forward block and all that
follows need only the one: the same logits and gradients with a seventh less work per step for six layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lorasweep.training.model.families import MODEL_FAMILIES


def read_first_token_only(model: nn.Module) -> None:
    """Make the last layer of a transformers sequence classifier compute the first token alone, in place.

    Models of a family without `first_token` do not change. The last hidden state of a changed model has one token.
    """
    config: Any = getattr(model, "config", None)
    encoder: Any = getattr(model, getattr(model, "base_model_prefix", ""), None)
    family = MODEL_FAMILIES.get(getattr(config, "model_type", ""))
    if encoder is None or family is None or getattr(config, "_attn_implementation", "eager") == "eager":
        return
    if family.first_token == "bert":
        block = encoder.encoder.layer[-1].attention
        _turn_into(block.self, _FirstQuery)
        _turn_into(block, _FirstBlock)
    elif family.first_token == "distilbert":
        layer = encoder.transformer.layer[-1]
        _turn_into(layer.attention, _FirstQueryDistil)
        _turn_into(layer, _FirstLayerDistil)


def _turn_into(module: nn.Module, mixin: type) -> None:
    # A new class for this one module survives copying the model; a bound method would not.
    module.__class__ = type(f"{mixin.__name__}{type(module).__name__}", (mixin, type(module)), {})


def _attend(
    module: Any,
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    projections: tuple[nn.Module, nn.Module, nn.Module],
    options: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The attention's output for the first token; shape (rows, 1, width)."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def heads(projected: torch.Tensor) -> torch.Tensor:
        return projected.view(len(hidden), -1, *by_head).transpose(1, 2)

    by_head = (hidden.shape[-1] // module.attention_head_size, module.attention_head_size)
    query, key, value = projections
    attended, shares = ALL_ATTENTION_FUNCTIONS[module.config._attn_implementation](
        module,
        heads(query(hidden[:, :1])),
        heads(key(hidden)),
        heads(value(hidden)),
        None if mask is None else mask[:, :, :1],
        dropout=module.dropout.p if module.training else 0.0,
        scaling=module.scaling,
        **options,
    )
    return attended.reshape(len(hidden), 1, -1), shares


class _FirstQuery:
    """BERT's self-attention for the first token's query."""

    query: nn.Module
    key: nn.Module
    value: nn.Module

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        projections = (self.query, self.key, self.value)
        return _attend(self, hidden_states, attention_mask, projections, options)


class _FirstBlock:
    """BERT's attention block around it, with the first token's residual."""

    self: Any
    output: Any

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        for unused in ("encoder_hidden_states", "encoder_attention_mask", "past_key_values"):
            options.pop(unused, None)
        attended, shares = self.self(hidden_states, attention_mask, **options)
        return self.output(attended, hidden_states[:, :1]), shares


class _FirstQueryDistil:
    """DistilBERT's self-attention for the first token's query."""

    q_lin: nn.Module
    k_lin: nn.Module
    v_lin: nn.Module
    out_lin: nn.Module

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        projections = (self.q_lin, self.k_lin, self.v_lin)
        attended, shares = _attend(self, hidden_states, attention_mask, projections, options)
        return self.out_lin(attended), shares


class _FirstLayerDistil:
    """DistilBERT's layer around it."""

    attention: Any
    ffn: nn.Module
    sa_layer_norm: nn.Module
    output_layer_norm: nn.Module

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any
    ) -> torch.Tensor:
        attended, _ = self.attention(hidden_states, attention_mask=attention_mask, **options)
        normed = self.sa_layer_norm(attended + hidden_states[:, :1])
        result: torch.Tensor = self.output_layer_norm(self.ffn(normed) + normed)
        return result
