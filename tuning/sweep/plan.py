"""Plans a sweep: resolves and checks data, model, space, resources and budget before the first trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from lorasweep.search_spaces.domains import Choice
from lorasweep.search_spaces.space import SearchSpace, Space, load_space
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.encoding import EncodedDataset, encode_dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.data.summary import describe
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import target_module_names
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.training.model.target_modules import PRESETS
from lorasweep.training.settings import UNTUNED, Hyperparameters
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.machine import git_state, machine
from lorasweep.tuning.search.stopping import Budget, plan_budget, stopping_rule
from lorasweep.tuning.trials.cluster import Resources, find_resources, resolve_resources
from lorasweep.tuning.trials.trial import TrialSetup

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that has passed every check and not started.

    Attributes:
        target_modules: choice of target modules → names of the modules that it adapts.
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
        """Plain values for `plan.json`, displays and MLflow."""
        data = describe(self.dataset)
        return {
            "name": self.config.name,
            "metric": self.config.training.metric,
            "stopping": stopping_rule(self.config.search).label,
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


def plan_sweep(
    config: SweepConfig,
    dataset: Dataset | None = None,
    space: Space | None = None,
    frames: Mapping[str, pd.DataFrame] | None = None,
) -> SweepPlan:
    """Resolve and check everything.

    Args:
        dataset: prepared rows; read from the configuration's files if None.
        space: the search space; loaded as `config.search.space` names it if None.
        frames: tables to read in place of the configuration's files; see `load_dataset`.

    Raises:
        LorasweepError: data, base model, target modules, space or resources do not fit.
    """
    space = space or load_space(config.search.space)
    resources = resolve_resources(
        config.resources, config.search.trials, *find_resources(config.resources.address)
    )
    device = torch.device("cuda" if resources.gpus_per_trial and torch.cuda.is_available() else "cpu")
    base = resolve_base_model(config.base_model)
    amp = resolve_precision(config.training.precision, device, base.model_type)
    if dataset is None:
        dataset = load_dataset(config.data, config.training.seed, frames)
    choices = target_module_choices(space)
    target_modules = {choice: target_module_names(base, choice) for choice in choices}
    encoded = encode_dataset(dataset, load_tokenizer(base), config.training.max_length)
    budget = plan_budget(config.search, config.training.epochs, config.training.rungs)
    return SweepPlan(config, dataset, encoded, base, space, resources, amp, budget, target_modules)


def target_module_choices(space: Space) -> list[str]:
    """Every value of `target_modules` that the space can propose; empty for full fine-tuning."""
    if not isinstance(space, SearchSpace):
        # A function's choices show only when it runs; each trial checks its own.
        return []
    methods = choices_of(space, "method")
    if methods and all(method == "full" for method in methods):
        return []
    return [str(choice) for choice in choices_of(space, "target_modules")]


def choices_of(space: SearchSpace, name: str) -> list[Any]:
    """All values that a space gives a hyperparameter: its choices, its constant, or the default."""
    domain = space.parameters.get(name)
    if isinstance(domain, Choice):
        return list(domain.values)
    return [getattr(space.hyperparameters({}), name)]


def alone(plan: SweepPlan) -> Resources:
    """Resources of a single training after the trials; on this machine, the cores of all of them."""
    resources = plan.resources
    if plan.config.resources.address is not None:
        return resources
    return replace(resources, cpus_per_trial=resources.cpus_per_trial * resources.concurrency, concurrency=1)


def trial_setup(plan: SweepPlan, resources: Resources) -> TrialSetup:
    """The setup that all trials of a sweep share."""
    return TrialSetup(
        base=plan.base,
        training_settings=plan.config.training,
        threads=resources.cpus_per_trial,
        gpu_share=resources.gpus_per_trial,
        storage=plan.config.resources.storage,
        system_metrics=plan.config.system_metrics,
    )


def untuned_settings(plan: SweepPlan) -> Hyperparameters:
    """The untuned default hyperparameters; for a model without presets with the space's first pattern."""
    patterns = [choice for choice in plan.target_modules if choice not in PRESETS]
    return UNTUNED.model_copy(update={"target_modules": patterns[0]}) if patterns else UNTUNED
