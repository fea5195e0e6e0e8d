"""The loss of several labels a text."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def binary_losses(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, smoothing: float = 0.0
) -> torch.Tensor:
    """Binary cross entropy of each row, in nats: the mean over its labels; shape (rows,).

    Args:
        logits: float, shape (rows, labels).
        labels: 1 where a row has the label; shape (rows, labels), of any type.
        weights: what a row that has a label counts in that label's loss, beside one that has not; float32, shape
            (labels,).
        smoothing: targets are this share nearer to one half.
    """
    targets = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=weights)
    return losses.mean(dim=1)
