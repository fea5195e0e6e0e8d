"""The AMP types: the one place to add a type in which matrix products may run.

A new one is an entry of `AMP_TYPES`, and its name in `Precision`. Settings, options, `auto`, autocast, the
gradient scaler and the checks of exports follow from these. Imported for `--help` too: nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from lorasweep.training.devices import Card

Precision = Literal["auto", "bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class AmpType:
    """A type of matrix products.

    Attributes:
        dtype: its name in torch; None where everything stays in fp32.
        in_hardware: whether a device multiplies it natively, or the workers' GPUs for which it stands; emulation is
            slower than fp32.
        needs_gpu: not available on a CPU at all.
        scaled: gradients need a scaler.
    """

    dtype: str | None
    in_hardware: Callable[[torch.device, Sequence[Card]], bool]
    needs_gpu: bool = False
    scaled: bool = False


def bf16_in_hardware(device: torch.device, workers: Sequence[Card] = ()) -> bool:
    """Whether the device, or all of the workers' GPUs for which it stands, multiply bf16 matrices natively."""
    from lorasweep.training import devices  # imports torch

    return devices.bf16_in_hardware(device, workers)


AMP_TYPES: dict[Precision, AmpType] = {
    # bf16 has fp32's range, so its gradients need no scaling.
    "bf16": AmpType("bfloat16", lambda device, workers: bf16_in_hardware(device, workers)),
    # fp16 has 5 bits of exponent: small gradients vanish unless the loss is scaled up
    # (Micikevicius et al., "Mixed Precision Training", 2018).
    "fp16": AmpType("float16", lambda device, workers: device.type == "cuda", needs_gpu=True, scaled=True),
    "fp32": AmpType(None, lambda device, workers: True),
}
"""By name; `auto` takes the first that the device has in hardware."""
