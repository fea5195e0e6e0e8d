"""Stand-in of the branch `texts` for the file of the branch `devices`, which wins."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the host has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def empty_cache(device: torch.device) -> None:
    """Give freed memory back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
