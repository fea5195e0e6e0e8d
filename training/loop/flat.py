"""One flat buffer for everything that is trained, one for its gradient, and two for AdamW's moments.

The model's parameters are views of the buffer. Clipping, AdamW and the copy in the AMP type then take a few kernels
in all instead of a few for each tensor, which on a GPU is much of the cost of a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import nn

from lorasweep.training.model.faster.flat_view import FlatView

# Elements between possible beginnings of a tensor: 128 bytes in a type of 2 bytes; fast products need 16.
ALIGNMENT = 64
# Elements whose squares are summed at once. On a CPU torch sums millions of them in fp32, and is off by a percent.
NORM_CHUNK = 1024
MOMENTS = ("exp_avg", "exp_avg_sq")
# In AdamW's groups: their share of the learning rate.
RATIO = "rate_ratio"


class FlatParameters:
    """Trained parameters as views of one buffer: first the matrices, which weight decay pulls, then the others.

    Among these, parameters of one rate stand together, so AdamW takes a few kernels for each rate.

    The gaps between the tensors are 0 in every buffer, and stay so.

    Attributes:
        parameters: in the order of the buffer; the first `matrices` are matrices.
        values: 1-d, in the parameters' type, which is fp32 in training.
        gradients: 1-d, in the same type; each parameter's `.grad` is a view of it.
        shadow: 1-d copy of the values in the AMP type, or None.
        moments: AdamW's, by name; 1-d, in the same type.
        ratios: of each parameter's learning rate over the trial's.
        step_counts: AdamW's, of each group; fp32, shape ().
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        shadow_type: torch.dtype | None = None,
        ratios: Sequence[float] | None = None,
    ) -> None:
        """Move the parameters into new buffers.

        Args:
            parameters: at least one; on one device and of one type.
            shadow_type: of the copy in the AMP type, if there are layers that read one.
            ratios: of each parameter's learning rate over the trial's; 1 for all if None.
        """
        given = tuple(parameters)
        rated = zip(given, [1.0] * len(given) if ratios is None else ratios, strict=True)
        # The sort keeps the order otherwise, which checkpoints rely on.
        ordered = sorted(rated, key=lambda pair: (pair[0].dim() < 2, pair[1]))
        self.parameters = tuple(parameter for parameter, _ in ordered)
        self.ratios = tuple(ratio for _, ratio in ordered)
        self.matrices = sum(parameter.dim() >= 2 for parameter in self.parameters)
        sizes = [_round_up(parameter.numel(), ALIGNMENT) for parameter in self.parameters]
        self._starts = [0, *accumulate(sizes)]
        like = self.parameters[0]
        self.values = torch.zeros(_round_up(sum(sizes), NORM_CHUNK), dtype=like.dtype, device=like.device)
        for parameter, place in zip(self.parameters, self.views(self.values), strict=True):
            place.copy_(parameter.detach())
            parameter.data = place
        self.gradients = torch.zeros_like(self.values)
        self.shadow = None if shadow_type is None else torch.zeros_like(self.values, dtype=shadow_type)
        # Made before the first step, so that it shows at once if memory is too small for them.
        self.moments = {name: torch.zeros_like(self.values) for name in MOMENTS}
        self.step_counts = [torch.zeros((), device=like.device) for _ in self._groups()]
        shadows = [None] * len(sizes) if self.shadow is None else self.views(self.shadow)
        self._flat_views = [
            FlatView(gradient, shadow)
            for gradient, shadow in zip(self.views(self.gradients), shadows, strict=True)
        ]
        self.zero_gradients()
        self.refresh_shadow()

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """The parts of a buffer that belong to the parameters, each in its parameter's shape."""
        return [
            flat[start : start + parameter.numel()].view(parameter.shape)
            for start, parameter in zip(self._starts, self.parameters, strict=False)
        ]

    def adamw(self, rate: float, weight_decay: float) -> torch.optim.AdamW:
        """AdamW over the buffer; as usual for transformers only matrices decay, not biases and norms."""
        groups: list[dict[str, Any]] = []
        states: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
        for (part, numbers), step in zip(self._groups(), self.step_counts, strict=True):
            of_group = nn.Parameter(self.values[part])
            of_group.grad = self.gradients[part]
            ratio = self.ratios[numbers.start]
            groups.append(
                {
                    "params": [of_group],
                    "weight_decay": weight_decay if numbers.start < self.matrices else 0.0,
                    "lr": rate * ratio,
                    RATIO: ratio,
                }
            )
            states[of_group] = {"step": step} | {name: buffer[part] for name, buffer in self.moments.items()}
        optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
        optimizer.state.update(states)
        return optimizer

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """AdamW's step counts and moments of each parameter, as `adamw.NUMBER.NAME`; views of what AdamW uses."""
        tensors: dict[str, torch.Tensor] = {}
        for (_, numbers), step in zip(self._groups(), self.step_counts, strict=True):
            tensors |= {f"adamw.{number}.step": step for number in numbers}
        for name, buffer in self.moments.items():
            tensors |= {f"adamw.{number}.{name}": view for number, view in enumerate(self.views(buffer))}
        return tensors

    def load_optimizer_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `optimizer_tensors` gave; other tensors are left alone.

        Raises:
            KeyError: one is missing.
            ValueError: one has another shape.
        """
        for name, place in self.optimizer_tensors().items():
            if tensors[name].shape != place.shape:
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(place.shape)}")
            place.copy_(tensors[name])

    def clip_gradients(self, max_norm: float) -> None:
        """Shorten the gradient to a global norm of at most `max_norm`, as `clip_grad_norm_` does."""
        chunks = torch.linalg.vector_norm(self.gradients.view(-1, NORM_CHUNK), dim=1)
        self.gradients.mul_((max_norm / (torch.linalg.vector_norm(chunks) + 1e-6)).clamp(max=1.0))

    def zero_gradients(self) -> None:
        """Set the gradient to 0, and give each parameter its part of it, should it have lost it."""
        self.gradients.zero_()
        for parameter, view in zip(self.parameters, self._flat_views, strict=True):
            if parameter.grad is not view.gradient:
                parameter.grad = view.gradient

    def refresh_shadow(self) -> None:
        """Write the copy in the AMP type anew, after the values have changed."""
        if self.shadow is not None:
            self.shadow.copy_(self.values)
        for parameter, view in zip(self.parameters, self._flat_views, strict=True):
            view.attach(parameter)

    def _groups(self) -> list[tuple[slice, range]]:
        """Parameters that AdamW treats alike: their part of a buffer, and their numbers."""
        kinds = [(number < self.matrices, ratio) for number, ratio in enumerate(self.ratios)]
        found: list[tuple[slice, range]] = []
        for _, members in groupby(range(len(kinds)), key=lambda number: kinds[number]):
            numbers = list(members)
            end = numbers[-1] + 1
            last = None if end == len(kinds) else self._starts[end]
            found.append((slice(self._starts[numbers[0]], last), range(numbers[0], end)))
        return found


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
