"""Target modules: presets as patterns for each model type, and the module names that they match.

PEFT matches a text given as `target_modules` against full module names (`re.fullmatch`). The patterns here are
anchored at the model's layers, so they never adapt the pooler or the classification head by accident.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from lorasweep.training.errors import ModelError, SettingsError
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.layers import ALL, chosen_layers, in_layers
from lorasweep.training.patterns import parse_pattern
from lorasweep.training.settings import Hyperparameters

if TYPE_CHECKING:
    from torch import nn

Number = TypeVar("Number", int, float)

PRESETS = ("query-value", "attention", "feed-forward", "all-linear")


def is_preset(target_modules: str) -> bool:
    """Whether this is a preset's name; anything else is a regular expression."""
    return target_modules in PRESETS


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled regular expression. Raises `SettingsError` if it does not compile."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SettingsError(
            f"{pattern!r} is neither a preset ({', '.join(PRESETS)}) nor a regular expression: {error}"
        ) from None


def target_pattern(
    model_type: str, target_modules: str, model: nn.Module | None = None, layers: str = ALL
) -> str:
    """Regular expression over full module names, as PEFT's `LoraConfig(target_modules=...)` takes it.

    Args:
        target_modules: a preset's name, or a regular expression, which is returned as it is for all layers.
        model: of which `layers` are some; only needed where they are not all.
        layers: as in `chosen_layers`.

    Raises:
        ModelError: a preset of a model type without presets.
        SettingsError: what does not compile, or layers that the model does not have.
    """
    pattern = _pattern(model_type, target_modules)
    return pattern if layers == ALL or model is None else in_layers(pattern, chosen_layers(model, layers))


def _pattern(model_type: str, target_modules: str) -> str:
    if not is_preset(target_modules):
        return compile_pattern(target_modules).pattern
    family = MODEL_FAMILIES.get(model_type)
    if family is None:
        raise ModelError(
            f"target_modules: {target_modules} is not known for models of type {model_type!r}, only for "
            f"{', '.join(sorted(MODEL_FAMILIES))}; pass a regular expression over full module names instead"
        )
    names = {
        "query-value": family.query_value,
        "attention": family.attention,
        "feed-forward": family.feed_forward,
        "all-linear": family.attention + family.feed_forward + family.extra,
    }[target_modules]
    return f"{family.prefix}({'|'.join(name.replace('.', '[.]') for name in names)})"


def is_conv1d(module: object) -> bool:
    """Whether a module is GPT-2's form of a linear layer, whose weight is transposed: (inputs, outputs)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def resolve_target_modules(
    model: nn.Module, model_type: str, target_modules: str, layers: str = ALL
) -> list[str]:
    """Full names of the linear modules of `model` that are adapted, in the model's order.

    Args:
        model: a transformers model for sequence classification, without an adapter.
        target_modules: a preset's name or a regular expression.
        layers: as in `chosen_layers`.

    Raises:
        ModelError: nothing matches, or something that cannot be adapted: a module that is not linear, or one outside
            the encoder (the classification head is trained whole anyway).
        SettingsError: the model has no such layers.
    """
    pattern = target_pattern(model_type, target_modules, model, layers)
    linear = [name for name, module in model.named_modules() if _is_linear(module)]
    matched = {name: module for name, module in model.named_modules() if re.fullmatch(pattern, name)}
    if not matched:
        among = "" if layers == ALL else f" in its layers {layers}"
        raise ModelError(
            f"target_modules: {target_modules!r} matches no module of this {model_type} model{among}"
            f"{_did_you_mean(target_modules)}; its linear layers are {_examples(linear)}; a pattern must "
            "match the whole name, so begin it with .*"
        )
    for name, module in matched.items():
        if not _is_linear(module):
            raise ModelError(
                f"target_modules: {target_modules!r} also matches {name or 'the whole model'} "
                f"({type(module).__name__}), and only linear layers can be adapted; narrow it to names "
                f"such as {_examples(linear)}"
            )
    prefix = getattr(model, "base_model_prefix", "")
    outside = [
        name for name in matched if prefix and hasattr(model, prefix) and not name.startswith(f"{prefix}.")
    ]
    if outside:
        raise ModelError(
            f"target_modules: {target_modules!r} also matches {outside[0]}, which is outside the "
            f"encoder (pooler or classification head); narrow it to names that begin with {prefix}."
        )
    return list(matched)


def check_patterns(model: nn.Module, hyperparameters: Hyperparameters) -> None:
    """See that each key of the patterns for ranks and alphas is the end of a linear module's name.

    It need not be one that is adapted: which these are may be searched, too.

    Args:
        model: a transformers model for sequence classification, without an adapter.

    Raises:
        ModelError: with the key, and names that there are.
    """
    written = {
        "rank_pattern": hyperparameters.rank_pattern,
        "alpha_pattern": hyperparameters.alpha_pattern,
    }
    linear = [name for name, module in model.named_modules() if _is_linear(module)]
    for field, text in written.items():
        for key in parse_pattern(text):
            if not any(_fits_end(key, name) for name in linear):
                raise ModelError(
                    f"{field}: {key!r} is the end of no linear layer's name; they are {_examples(linear)}"
                )


def fitting(pattern: Mapping[str, Number], names: Iterable[str]) -> dict[str, Number]:
    """The part of a pattern for ranks or alphas that PEFT will find a module for: it warns of the rest.

    Args:
        pattern: key → number.
        names: of the adapted modules.
    """
    names = list(names)
    return {key: number for key, number in pattern.items() if any(_fits_end(key, name) for name in names)}


def _fits_end(key: str, name: str) -> bool:
    """Whether PEFT gives a module what a pattern has under this key."""
    return re.match(rf"(.*\.)?({key})$", name) is not None


def _is_linear(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear) or is_conv1d(module)


def _did_you_mean(target_modules: str) -> str:
    close = difflib.get_close_matches(target_modules.replace("_", "-"), PRESETS, n=1)
    return f" (did you mean the preset {close[0]}?)" if close else ""


def _examples(names: list[str], most: int = 8) -> str:
    """One name per kind of layer; others differ only in their numbers."""
    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\d+", "N", name), name)
    shown = list(kinds.values())
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")
