"""A base model's frozen tensors, as trials need them: on their device, linear weights in the AMP type."""

from __future__ import annotations

import torch
from torch import nn

from lorasweep.training.model.precision import is_frozen_linear


class FrozenTensors:
    """Frozen tensors of one base model on a device, shared by the trials of a process.

    Each is made once, so a GPU holds the base once, its linear weights in the AMP type alone, and the fp32 weights
    stay where they were loaded. When a trial needs another device or type, what was made before is dropped.

    Autocast casts a frozen fp32 weight anew in each forward pass; it caches only weights that need a gradient.
    Stored in the AMP type they give the same numbers without that work.
    """

    def __init__(self) -> None:
        self._kind: tuple[torch.device, torch.dtype | None] | None = None
        # By the identity of a tensor, which stays in the entry so that no other takes its place.
        self._made: dict[tuple[int, torch.dtype], tuple[nn.Parameter, nn.Parameter]] = {}

    def put_into(self, model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
        """Replace a model's frozen parameters by their forms on the device, in place.

        The parameters themselves do not change, so a base model that shares them stays as it is.

        Args:
            dtype: of the weights of linear layers; None leaves all in their own type.
        """
        if self._kind != (device, dtype):
            self.drop()
            self._kind = (device, dtype)
        for module in model.modules():
            own = dtype if is_frozen_linear(module) else None
            for name, parameter in list(module.named_parameters(recurse=False)):
                if not parameter.requires_grad:
                    setattr(module, name, self._form(parameter, device, own or parameter.dtype))

    def drop(self) -> None:
        """Forget what was made; models that use it keep it."""
        self._made.clear()

    def _form(self, parameter: nn.Parameter, device: torch.device, dtype: torch.dtype) -> nn.Parameter:
        if parameter.device == device and parameter.dtype == dtype:
            return parameter
        key = (id(parameter), dtype)
        if key not in self._made:
            # From the CPU it is cast before it travels.
            form = nn.Parameter(parameter.detach().to(device, dtype), requires_grad=False)
            self._made[key] = (parameter, form)
        return self._made[key][1]
