"""The loss of each row, from its logits and its label.

What trains is chosen by hyperparameters; evaluations always score the plain cross entropy, so that losses compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lorasweep.training.data.labels import several
from lorasweep.training.loop.label_losses import binary_losses
from lorasweep.training.settings import Hyperparameters


@dataclass(frozen=True)
class RowLosses:
    """Cross entropy or focal loss, with weights of the classes and label smoothing.

    The focal loss is (1 - p)^gamma times the cross entropy, p being the probability of the row's own label (Lin et
    al., "Focal Loss for Dense Object Detection", 2017). Label smoothing changes the cross entropy in it, not p. With a
    gamma of 0 it is the cross entropy.

    Attributes:
        weights: of the classes; float32, shape (classes,), on the device of the logits; None for equal ones. Of
            several labels a text those of the rows that have the label.
        smoothing: share of each target that is spread evenly over all labels.
        gamma: exponent of the focal loss; None for the cross entropy.
    """

    weights: torch.Tensor | None = None
    smoothing: float = 0.0
    gamma: float | None = None

    @classmethod
    def of(cls, hyperparameters: Hyperparameters, weights: torch.Tensor | None) -> RowLosses:
        """The loss that a trial trains on.

        Args:
            weights: as the attribute.
        """
        focal = hyperparameters.loss == "focal"
        gamma = hyperparameters.focal_gamma if focal else None
        return cls(weights, hyperparameters.label_smoothing, gamma)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each row, its class's weight in it; shape (rows,), in nats. Nothing waits for the device.

        Args:
            logits: float32, shape (rows, classes).
            labels: int64, shape (rows,); or of several labels a text 0 and 1, shape (rows, classes).
        """
        if several(labels):
            return binary_losses(logits, labels, self.weights, self.smoothing, self.gamma)
        losses = F.cross_entropy(
            logits, labels, self.weights, reduction="none", label_smoothing=self.smoothing
        )
        if self.gamma is None:
            return losses
        # Not from the losses: those have weights and smoothing in them. 1 - p by expm1: near p = 1 it loses no digits,
        # and the clamp keeps the power's gradient finite there.
        log_p = F.log_softmax(logits, dim=-1).gather(1, labels[:, None]).squeeze(1)
        wrong: torch.Tensor = (-torch.expm1(log_p)).clamp(min=torch.finfo(logits.dtype).tiny)
        return wrong.pow(self.gamma) * losses

    def shares(self, labels: torch.Tensor) -> torch.Tensor:
        """What each row's loss counts in a batch's mean: 1 / the sum of the rows' weights; shape (rows,)."""
        if self.weights is None or several(labels):
            return torch.full((len(labels),), 1 / len(labels), device=labels.device)
        return (1 / self.weights.index_select(0, labels).sum()).expand(len(labels))
