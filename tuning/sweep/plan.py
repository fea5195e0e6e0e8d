"""Everything that can be known and refused before the first trial: data, model, space, resources, budget."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from lorasweep.search_spaces.domains import Choice
from lorasweep.search_spaces.space import SearchSpace, Space, load_space
from lorasweep.training.data.encoding import EncodedDataset, encode_dataset
from lorasweep.training.data.load import Dataset, describe, load_dataset
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import target_module_names
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.training.model.target_modules import PRESETS
from lorasweep.training.settings import UNTUNED, Hyperparameters
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.machine import git_state, machine
from lorasweep.tuning.search.stopping import Budget, plan_budget
from lorasweep.tuning.trials.cluster import Resources, find_resources, resolve_resources
from lorasweep.tuning.trials.trial import TrialSetup


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that has passed every check and has not begun.

    Attributes:
        target_modules: each choice of target modules → the real module names it adapts.
    """

    config: SweepConfig
    dataset: Dataset
    encoded: EncodedDataset
    base: BaseModel
    space: Space
    resources: Resources
    amp: AmpPolicy
    budget: Budget
    target_modules: dict[str, list[str]]

    def summary(self) -> dict[str, Any]:
        """What is kept beside the sweep and shown before it: plain values only."""
        data = describe(self.dataset)
        return {
            "data": asdict(data)
            | {"fingerprint": self.dataset.fingerprint, "tokens": self.encoded.token_summary()},
            "text_columns": list(self.dataset.text_columns),
            "label_column": self.dataset.label_column,
            "base_model": asdict(self.base),
            "space": self.space.name,
            "searched": list(self.space.searched),
            "target_modules": {choice: len(names) for choice, names in self.target_modules.items()},
            "resources": asdict(self.resources),
            "device": self.amp.device.type,
            "precision": self.amp.name,
            "machine": machine(cuda=self.amp.device.type == "cuda"),
            "git": git_state(),
            "budget": asdict(self.budget),
        }


def plan_sweep(config: SweepConfig, dataset: Dataset | None = None, space: Space | None = None) -> SweepPlan:
    """Check and resolve everything.

    Args:
        dataset: the prepared rows of a sweep that goes on; read from the configuration's files if None.
        space: the search space of a sweep that goes on; loaded by the configuration's name of it if None.

    Raises:
        LorasweepError: whatever of data, base model, target modules, space or resources cannot work.
    """
    space = space or load_space(config.search.space)
    resources = resolve_resources(
        config.resources, config.search.trials, *find_resources(config.resources.address)
    )
    device = torch.device("cuda" if resources.gpus_per_trial and torch.cuda.is_available() else "cpu")
    base = resolve_base_model(config.base_model)
    amp = resolve_precision(config.training.precision, device, base.model_type)
    if dataset is None:
        dataset = load_dataset(config.data, config.training.seed)
    choices = target_module_choices(space)
    target_modules = {choice: target_module_names(base, choice) for choice in choices}
    encoded = encode_dataset(dataset, load_tokenizer(base), config.training.max_length)
    budget = plan_budget(config.search, config.training.epochs, config.training.rungs)
    return SweepPlan(config, dataset, encoded, base, space, resources, amp, budget, target_modules)


def target_module_choices(space: Space) -> list[str]:
    """Every value of `target_modules` that the space can propose; none where nothing is adapted."""
    if not isinstance(space, SearchSpace):
        # What a function may choose is known only as it chooses; the trials check it.
        return []
    methods = choices_of(space, "method")
    if methods and all(method == "full" for method in methods):
        return []
    return [str(choice) for choice in choices_of(space, "target_modules")]


def choices_of(space: SearchSpace, name: str) -> list[Any]:
    """The values that a hyperparameter may take in a space: a choice's, a constant, or the default."""
    domain = space.parameters.get(name)
    if isinstance(domain, Choice):
        return list(domain.values)
    return [getattr(space.hyperparameters({}), name)]


def alone(plan: SweepPlan) -> Resources:
    """What one task gets that runs when the trials are done: the cores of all of them, on this machine."""
    resources = plan.resources
    if plan.config.resources.address is not None:
        return resources
    return replace(resources, cpus_per_trial=resources.cpus_per_trial * resources.concurrency, concurrency=1)


def trial_setup(plan: SweepPlan, resources: Resources) -> TrialSetup:
    """What all trials of a planned sweep share."""
    return TrialSetup(
        base=plan.base,
        settings=plan.config.training,
        threads=resources.cpus_per_trial,
        gpu_share=resources.gpus_per_trial,
        storage=plan.config.resources.storage,
        system_metrics=plan.config.system_metrics,
    )


def untuned_settings(plan: SweepPlan) -> Hyperparameters:
    """The usual untuned settings; for a model without presets with the first pattern of the space."""
    patterns = [choice for choice in plan.target_modules if choice not in PRESETS]
    return UNTUNED.model_copy(update={"target_modules": patterns[0]}) if patterns else UNTUNED
