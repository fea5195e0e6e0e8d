"""Which of a model's layers are adapted: numbers for a choice's name, and the pattern that finds their modules.

PEFT's own `layers_to_transform` goes with the ends of module names alone, and `output.dense` is the end of two modules
in each of BERT's layers. So the numbers become part of the pattern, which PEFT saves with the adapter and reads back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorasweep.training.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

ALL, UPPER_HALF, EVERY_OTHER = "all", "upper-half", "every-other"


def layer_number(name: str) -> int | None:
    """The layer of a module: the first part of its name that is a number; None outside of all layers."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def chosen_layers(model: nn.Module, layers: str) -> list[int]:
    """Numbers of the layers that a choice names, counted from 0 at the input.

    Args:
        model: a transformers model for sequence classification, without an adapter.
        layers: `all`; `upper-half`, with the middle one of an odd number; `every-other`, down from the last one; or a
            range such as `6-11`, both ends included.

    Raises:
        SettingsError: the model has no such layers, or one alone, whose weights stand for all (ALBERT).
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    numbers = [layer_number(name) for name, _ in model.named_modules() if name.startswith(prefix)]
    count = max((number + 1 for number in numbers if number is not None), default=0)
    if layers == ALL:
        return list(range(count))
    if count < 2:
        raise SettingsError(
            f"layers: {layers} needs layers to choose from, and this model has {count}; use {ALL}"
        )
    if layers == UPPER_HALF:
        return list(range(count // 2, count))
    if layers == EVERY_OTHER:
        return list(range(count - 1, -1, -2))[::-1]
    first, last = (int(end) for end in layers.split("-"))
    if not first <= last < count:
        raise SettingsError(
            f"layers: {layers} is no range of this model's {count} layers, which have the numbers 0 to {count - 1}; "
            f"use for example {count // 2}-{count - 1}"
        )
    return list(range(first, last + 1))


def in_layers(pattern: str, numbers: list[int]) -> str:
    """A pattern for the modules that another one matches in these layers alone."""
    # Parts of a name that are no numbers, and then the first one that is.
    return rf"(?=(?:(?!\d+[.])[^.]+[.])*(?:{'|'.join(map(str, numbers))})[.])(?:{pattern})"
