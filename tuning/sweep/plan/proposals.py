"""What a search space can propose at most: its target modules, and the memory of its largest trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lorasweep.search_spaces.domains import Choice, Domain
from lorasweep.search_spaces.space import SearchSpace, Space
from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.errors import SettingsError
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.memory import adapter_size, measure_row, trial_bytes
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.target_modules import check_patterns, fitting, resolve_target_modules
from lorasweep.training.patterns import parse_pattern, rank_pattern
from lorasweep.training.settings import TrainingSettings


def target_module_choices(space: Space) -> list[str]:
    """Every value of `target_modules` that the space can propose; empty for full fine-tuning."""
    if not isinstance(space, SearchSpace):
        # A function's choices show only when it runs; each trial checks its own.
        return []
    methods = choices_of(space, "method")
    if methods and all(method == "full" for method in methods):
        return []
    return [str(choice) for choice in choices_of(space, "target_modules")]


def adapted_modules(space: Space, model: nn.Module, model_type: str) -> dict[str, list[str]]:
    """Choice of target modules → names of the modules that it adapts, with the most layers that the space can propose.

    Raises:
        ModelError: a choice fits nothing in the model.
        SettingsError: the model has no such layers.
    """
    layers = [str(choice) for choice in choices_of(space, "layers")] if isinstance(space, SearchSpace) else []
    return {
        choice: max((resolve_target_modules(model, model_type, choice, each) for each in layers), key=len)
        for choice in target_module_choices(space)
    }


def check_proposals(
    space: Space, training: TrainingSettings, model: nn.Module, target_modules: Mapping[str, Sequence[str]]
) -> None:
    """See that ranks and patterns fit the model, and that class weights are asked for in one place.

    Args:
        target_modules: choice → names of the modules that it adapts.

    Raises:
        ModelError: a name in a pattern is that of no linear layer.
        SettingsError: no trial adapts any such layer; a rank is larger than a layer of which PiSSA or OLoRA takes it;
            or both the sweep and the space speak of class weights.
    """
    named = space.parameters if isinstance(space, SearchSpace) else space.searched
    if training.class_weights and "class_weights" in named:
        raise SettingsError(
            f"--class-weights: the space {space.name} has class_weights, too; leave one of them out"
        )
    if not isinstance(space, SearchSpace):
        return
    adapted = [name for names in target_modules.values() for name in names]
    for field in ("rank_pattern", "alpha_pattern") if adapted else ():
        for choice in choices_of(space, field):
            check_patterns(model, space.hyperparameters({field: choice}))
            for key in parse_pattern(choice):
                if not fitting({key: 0}, adapted):
                    raise SettingsError(
                        f"{field}: {key!r} is the name of a layer that no trial adapts; leave it out, or change "
                        "target_modules"
                    )
    inits = [init for init in choices_of(space, "init") if init != "default"]
    if inits and adapted:
        sides = {name: min(model.get_parameter(f"{name}.weight").shape) for name in adapted}
        narrowest, rank = min(sides, key=sides.__getitem__), highest_rank(space)
        if rank > sides[narrowest]:
            raise SettingsError(
                f"init: {inits[0]} takes the space's rank {rank} out of {narrowest}, which has only "
                f"{sides[narrowest]}; lower rank, or leave out {inits[0]}"
            )


def highest_rank(space: SearchSpace) -> int:
    """The largest rank that a space gives a module, by a pattern or without."""
    by_pattern = [
        rank for choice in choices_of(space, "rank_pattern") for rank in rank_pattern(choice).values()
    ]
    return max([highest(space, "rank"), *by_pattern])


def choices_of(space: SearchSpace, name: str) -> list[Any]:
    """All values that a space gives a hyperparameter: its choices, its constant, or the default."""
    domain = space.parameters.get(name)
    if isinstance(domain, Choice):
        return list(domain.values)
    return [getattr(space.hyperparameters({}), name)]


def highest(space: SearchSpace, name: str) -> int:
    """The largest whole number that a space gives a hyperparameter."""
    domain = space.parameters.get(name)
    if isinstance(domain, Domain) and not isinstance(domain, Choice):
        return int(domain.distribution().high)
    return max(int(value) for value in choices_of(space, name))


def largest_trial(
    space: Space,
    loaded: LoadedBase,
    texts: EncodedTexts,
    target_modules: Mapping[str, Sequence[str]],
    amp: AmpPolicy,
    micro_batch_size: int | None = None,
) -> int | None:
    """Bytes of a device's memory that the largest trial of a space takes, about; None where nobody can foresee it.

    Args:
        texts: training rows.
        target_modules: choice → names of the modules that it adapts.
        micro_batch_size: rows on the device at once, if that is limited.
    """
    if not isinstance(space, SearchSpace):
        return None  # a function's proposals show only when it runs
    try:
        measured = measure_row(loaded, texts)
    except Exception:  # the model's own code, which raises whatever it likes
        return None
    rows = highest(space, "batch_size")
    rank = highest_rank(space)
    head = sum(p.numel() for name in loaded.missing for p in loaded.model.get_submodule(name).parameters())
    sizes = [adapter_size(loaded.model, names, rank) for names in target_modules.values()]
    trained = head + max(sizes, default=0)
    own = 0
    if set(choices_of(space, "init")) != {"default"}:
        weights: list[Any] = [
            [loaded.model.get_submodule(name).weight for name in names] for names in target_modules.values()
        ]
        own = max((sum(weight.numel() for weight in each) for each in weights), default=0)
    return max(
        trial_bytes(measured, method, min(rows, micro_batch_size or rows), trained, amp, own)
        for method in choices_of(space, "method")
    )
