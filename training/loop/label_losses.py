"""The loss of several labels a text."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def binary_losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float | None = None,
) -> torch.Tensor:
    """Binary cross entropy or focal loss of each row, in nats: the mean over its labels; shape (rows,).

    Nothing waits for the device.

    Args:
        logits: float, shape (rows, labels).
        labels: 1 where a row has the label; shape (rows, labels), of any type.
        weights: what a row that has a label counts in that label's loss, beside one that has not; float32, shape
            (labels,).
        smoothing: targets are this share nearer to one half.
        gamma: exponent of the focal loss, with p the probability of what is true of each label; as in `RowLosses`.
    """
    true = labels.to(logits.dtype)
    targets = true * (1 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=weights)
    if gamma is not None:
        # 1 - p is the probability of the opposite.
        wrong = torch.sigmoid(logits * (1 - 2 * true)).clamp(min=torch.finfo(logits.dtype).tiny)
        losses = wrong.pow(gamma) * losses
    return losses.mean(dim=1)
