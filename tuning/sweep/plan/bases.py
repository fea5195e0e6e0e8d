"""The base models that a sweep's trials choose among: found, compared and checked before the first trial."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lorasweep.search_spaces.bases import base_models
from lorasweep.search_spaces.space import SearchSpace, Space
from lorasweep.training.errors import LorasweepError, ModelError, SettingsError
from lorasweep.training.model.base_model import empty_model, load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import checkpoint_layers
from lorasweep.training.model.fitting import check_fit, most_tokens
from lorasweep.training.model.hub import BaseModel, check_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.quantized import check_kernels, check_package
from lorasweep.training.settings import Precision, Quantize
from lorasweep.tuning.sweep.plan.proposals import adapted_modules, choices_of
from lorasweep.tuning.trials.hardware import Hardware

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def resolve_bases(space: Space, own: str) -> dict[str, BaseModel]:
    """Name → base model of all that a space can propose; the sweep's own comes first.

    Args:
        space: as `settle_bases` returns it.

    Raises:
        ModelError: one cannot be found.
    """
    others = [name for name in base_models(space) if name is not None and name != own]
    return {name: resolve_base_model(name) for name in (own, *others)}


def common_precision(hardware: Hardware, asked: Precision, bases: Iterable[BaseModel]) -> AmpPolicy:
    """The precision of all trials: what `auto` becomes for every base model, fp32 where they differ.

    Raises:
        SettingsError: the devices or a model type cannot do what is asked for.
    """
    found = [hardware.precision(asked, base.model_type) for base in bases]
    return next((amp for amp in found if amp.name == "fp32"), found[0])


def check_quantize(space: Space, quantize: Quantize | None, hardware: Hardware, address: str | None) -> None:
    """Refuse a quantised base model where it cannot be trained; in a cluster each node has answered for itself.

    Raises:
        SettingsError: bitsandbytes is missing or has no kernel for the device, or the space has the method full.
    """
    if quantize is None:
        return
    check_package(quantize)
    if isinstance(space, SearchSpace) and "full" in choices_of(space, "method"):
        raise SettingsError(
            f"--quantize {quantize}: the base model is frozen, and the space has the method full, which trains it; "
            "leave one of them out"
        )
    if isinstance(space, SearchSpace):
        for init in sorted({"pissa", "olora"}.intersection(map(str, choices_of(space, "init")))):
            raise SettingsError(
                f"--quantize {quantize}: the base model keeps its weights, and the space has the init {init}, which "
                "changes them; leave one of them out"
            )
    if address is None:
        check_kernels(quantize, hardware.device.type, apart=bool(hardware.cards))


class CheckedBases:
    """Base models without their weights, and their tokenizers: what is compared before the rows are encoded.

    Args:
        bases: name → base model; the sweep's own comes first.

    Attributes:
        models: name → the model without weights.
        tokenizers: name → tokenizer.

    Raises:
        ModelError: a base model has no classifier, tokenizer or weights.
    """

    def __init__(self, bases: Mapping[str, BaseModel]) -> None:
        self.bases = bases
        self.models: dict[str, nn.Module] = {}
        self.tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        for name, base in bases.items():
            self.models[name], self.tokenizers[name] = empty_model(base), load_tokenizer(base)
            check_weights(base)

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the longest row that every model reads; None where no model's code sets a limit."""
        limits = (most_tokens(model) for model in self.models.values())
        return min((limit for limit in limits if limit is not None), default=None)

    def check_length(self, max_length: int) -> None:
        """Compare each model with its tokenizer and the length that is asked of it; see `check_fit`."""
        for name, base in self.bases.items():
            check_fit(self.models[name], base, self.tokenizers[name], max_length)

    def check_checkpointing(self) -> None:
        """Raise `ModelError` where a model's code cannot compute its layers again in the backward pass."""
        for name, model in self.models.items():
            with self.told(name):
                checkpoint_layers(model)

    def adapted_modules(self, space: Space) -> dict[str, dict[str, list[str]]]:
        """Base model → choice of target modules → names of the modules that it adapts.

        Raises:
            ModelError, SettingsError: a base model lacks something that the space can propose.
        """
        found = {}
        for name, base in self.bases.items():
            with self.told(name):
                found[name] = adapted_modules(space, self.models[name], base.model_type)
        return found

    @contextmanager
    def told(self, name: str) -> Iterator[None]:
        """Say of which base model an error is, where there are several."""
        try:
            yield
        except (ModelError, SettingsError) as error:
            if len(self.bases) == 1:
                raise
            kind: type[LorasweepError] = (
                type(error) if type(error) in (ModelError, SettingsError) else SettingsError
            )
            raise kind(f"base_model {name}: {error}; or leave this base model out of the choice") from error

    def others(self) -> dict[str, PreTrainedTokenizerBase]:
        """Name → tokenizer of all but the sweep's own."""
        own = next(iter(self.bases))
        return {name: tokenizer for name, tokenizer in self.tokenizers.items() if name != own}
