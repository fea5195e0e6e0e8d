"""What a layer may know of its parameter's place in a flat buffer: the gradient to add to, a copy in the AMP type."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

# Attribute of a parameter. `copy.deepcopy` leaves it out, so a copy of a model has no part in the buffers.
ATTRIBUTE = "flat_view"


@dataclass
class FlatView:
    """A parameter's parts of the buffers of `training.loop.flat`, each in the parameter's shape.

    Attributes:
        gradient: in the parameter's type.
        shadow: copy of the parameter in the AMP type; None without one.
        written: version and address of the parameter when its shadow was written last.
    """

    gradient: torch.Tensor
    shadow: torch.Tensor | None
    written: tuple[int, int] | None = None

    def attach(self, parameter: nn.Parameter) -> None:
        """Let layers find this at the parameter, whose shadow has just been written."""
        self.written = (parameter._version, parameter.data_ptr())
        setattr(parameter, ATTRIBUTE, self)


def in_type(parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A parameter's value in a type: its shadow if that is up to date, else a cast."""
    view: FlatView | None = getattr(parameter, ATTRIBUTE, None)
    shadow = None if view is None else view.shadow
    if view is None or shadow is None or shadow.dtype != dtype:
        return parameter.detach().to(dtype)
    # Changed since by something other than the optimiser, such as a checkpoint, or moved.
    if view.written != (parameter._version, parameter.data_ptr()):
        return parameter.detach().to(dtype)
    return shadow


def flat_gradient(parameter: torch.Tensor) -> torch.Tensor | None:
    """The part of the flat gradient to which a backward pass may add; None where autograd has to collect it."""
    view: FlatView | None = getattr(parameter, ATTRIBUTE, None)
    return view.gradient if view is not None and parameter.grad is view.gradient else None
