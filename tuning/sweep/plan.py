"""Plans a sweep: resolves and checks data, model, space, resources and budget before the first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lorasweep.search_spaces.space import Space, load_space
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.encoding import EncodedDataset, encode_dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.data.part import part_of
from lorasweep.training.data.summary import data_notes, describe, token_notes
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.loop.pace import Pace, measure_pace
from lorasweep.training.model.base_model import empty_model, load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.fitting import check_fit, check_rows, length_notes, most_tokens
from lorasweep.training.model.hub import BaseModel, check_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.target_modules import PRESETS
from lorasweep.training.settings import UNTUNED, Hyperparameters, Precision
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.machine import git_state, machine
from lorasweep.tuning.search.stopping import Budget, plan_budget, stopping_rule
from lorasweep.tuning.storage.check import check_storage
from lorasweep.tuning.sweep.judging import check_judging
from lorasweep.tuning.sweep.node_pace import pace_on_node
from lorasweep.tuning.sweep.proposals import adapted_modules, check_proposals, largest_trial
from lorasweep.tuning.trials.hardware import Hardware, coming_nodes, find_hardware, find_nodes
from lorasweep.tuning.trials.probe import probe_nodes
from lorasweep.tuning.trials.shares import Resources, check_resources, default_share, resolve_resources
from lorasweep.tuning.trials.trial import TrialSetup

if TYPE_CHECKING:
    import pandas as pd

    from lorasweep.training.model.base_model import LoadedBase


SETS_METRIC = "micro_f1"
"""Ranks trials where a text may have several labels, unless another metric is named. Rare labels make macro-F1 a matter
of few rows, and subset accuracy stays 0 for long."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that a sweep will take, about.

    Attributes:
        rung: between two evaluations of a trial.
        trial: a full trial.
        after: what comes after the trials.
        total: the whole sweep, with all its trials; at most its `max_minutes`.
    """

    rung: float
    trial: float
    after: float
    total: float


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that has passed every check and not started.

    Attributes:
        hardware: where its trials run.
        amp: the precision of every trial, on the device of its own process.
        target_modules: choice of target modules → names of the modules that it adapts at most.
        share_reason: why a trial gets its share of a GPU, on one line; empty where the user has named one.
        before: the precision of the sweep's earlier trials, if there are any.
        pace: seconds that a row takes, from a few steps; None where no node has room for a trial yet.
        estimate: seconds that the sweep takes by that pace.
        part: the part of the rows on which the search runs; None for all rows.
        length_notes: what to know of texts that are longer than the base model is used to.
        node_notes: what the user should know of unequal nodes of a cluster, a sentence each.
    """

    config: SweepConfig
    dataset: Dataset
    encoded: EncodedDataset
    base: BaseModel
    space: Space
    resources: Resources
    hardware: Hardware
    amp: AmpPolicy
    budget: Budget
    target_modules: dict[str, list[str]]
    share_reason: str = ""
    before: Precision | None = None
    pace: Pace | None = None
    estimate: Estimate | None = None
    part: EncodedDataset | None = None
    length_notes: Sequence[str] = ()
    node_notes: tuple[str, ...] = ()

    @property
    def search_data(self) -> EncodedDataset:
        """What the search's trials train on and are judged by: a part of the rows, or all."""
        return self.part or self.encoded

    @property
    def finalists(self) -> int:
        """The most trials that follow a search on a part, on all rows: the best, and the known-good start."""
        search = self.config.search
        started = bool(self.space.start_points()) or search.warm_start is not None
        return min(search.finalists_wanted + started, search.trials) if self.part is not None else 0

    @property
    def notes(self) -> list[str]:
        """What may be wrong with the data, too small to rely on, or unequal in the cluster, a sentence each."""
        return [
            *data_notes(describe(self.dataset)),
            *token_notes(self.encoded.token_summary()),
            *self.length_notes,
            *self.hardware.notes(self.config.training.precision, self.amp),
            *filter(None, [self.resources.growth_note(self.hardware.nodes)]),
            *self.node_notes,
            *self._other_precision(),
            *self._too_short(),
        ]

    def _other_precision(self) -> list[str]:
        if self.before is None or self.before == self.amp.name:
            return []
        return [
            f"earlier trials ran in {self.before}, further ones run in {self.amp.name}: their scores may differ"
        ]

    def _too_short(self) -> list[str]:
        minutes, estimate = self.config.search.max_minutes, self.estimate
        if minutes is None or estimate is None or estimate.trial + estimate.after <= 60 * minutes:
            return []
        needed = (estimate.trial + estimate.after) / 60
        return [
            f"--max-minutes {minutes:g}: one trial and what comes after it take some {needed:.1f} minutes here"
        ]

    def going_on(self, earlier: Mapping[str, Any]) -> SweepPlan:
        """The plan for more trials of a sweep: in the precision of those before, if all devices have that.

        Args:
            earlier: the summary of the plan that they had.
        """
        before = earlier.get("precision", self.amp.name)
        same_kind = earlier.get("device") == self.amp.device.type
        if same_kind and earlier.get("pace"):
            self = replace(self, pace=Pace(**earlier["pace"]))
        if same_kind and self.config.training.precision == "auto" and before in self.hardware.precisions:
            return replace(self, amp=AmpPolicy(before, self.amp.device), before=before)
        return replace(self, before=before)

    def summary(self) -> dict[str, Any]:
        """Plain values for `plan.json`, displays and MLflow."""
        data = describe(self.dataset)
        return {
            "name": self.config.name,
            "metric": self.config.training.metric,
            "objective": self.config.objective,
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
            "gpu_share_reason": self.share_reason or None,
            "machine": self._machine(),
            "git": git_state(),
            "budget": asdict(self.budget),
            "limits": {
                "trials": None if self.config.search.open else self.config.search.trials,
                "max_minutes": self.config.search.max_minutes,
                "patience": self.config.search.patience,
            },
            "pace": self.pace and asdict(self.pace),
            "estimate": self.estimate and asdict(self.estimate),
            "part": self._part(),
            "notes": self.notes,
        }

    def _part(self) -> dict[str, int] | None:
        """Rows of the part on which the search runs, how many of the best become finalists, and how many finalists
        there are at most; None for a search on all rows.
        """
        if self.part is None:
            return None
        return {
            "train": len(self.part.train),
            "validation": len(self.part.validation),
            "best": self.config.search.finalists_wanted,
            "finalists": self.finalists,
        }

    def _machine(self) -> dict[str, Any]:
        """This machine, with the GPUs that train: those of a cluster are elsewhere."""
        here = machine(cuda=bool(self.hardware.cards) and self.config.resources.address is None)
        return here | {"gpus": [card.name for card in self.hardware.cards]}


def plan_sweep(
    config: SweepConfig,
    dataset: Dataset | None = None,
    space: Space | None = None,
    frames: Mapping[str, pd.DataFrame] | None = None,
    *,
    timed: bool = False,
) -> SweepPlan:
    """Resolve and check everything.

    Args:
        dataset: prepared rows; read from the configuration's files if None.
        space: the search space; loaded as `config.search.space` names it if None.
        frames: tables to read in place of the configuration's files; see `load_dataset`.
        timed: train a few steps, to know how long the sweep will take.

    Raises:
        LorasweepError: data, base model, target modules, space, storage or resources do not fit.
    """
    space = space or load_space(config.search.space)
    wanted, training = config.resources, config.training
    nodes, coming = find_nodes(wanted.address), coming_nodes(wanted.address)
    check_resources(wanted, nodes, coming=coming)
    # One that may grow will have several.
    check_storage(wanted.storage, len(nodes) + bool(coming) if wanted.address is not None else 1)
    base = resolve_base_model(config.base_model)
    probed = probe_nodes(wanted, nodes, base)
    if probed.gone:
        nodes = tuple(node for node in nodes if node.id not in probed.gone)
        check_resources(wanted, nodes, coming=coming)
    hardware = find_hardware(wanted.address, nodes, wanted.gpus_per_trial, probed.hardware)
    amp = hardware.precision(training.precision, base.model_type)
    if dataset is None:
        dataset = load_dataset(config.data, config.training.seed, frames)
    if dataset.multi_label and "metric" not in training.model_fields_set:
        # Nobody has asked for the default, which counts texts with exactly their labels.
        training = training.model_copy(update={"metric": SETS_METRIC})
        config = config.model_copy(update={"training": training})
    splits = {"validation": dataset.validation.labels, "test": dataset.test.labels}
    check_judging(config, dataset, splits)
    model, tokenizer = empty_model(base), load_tokenizer(base)
    check_weights(base)
    limit = most_tokens(model)
    if "max_length" not in training.model_fields_set and limit is not None and limit < training.max_length:
        # Nobody has asked for the default.
        config = config.model_copy(update={"training": training.model_copy(update={"max_length": limit})})
    check_fit(model, base, tokenizer, config.training.max_length)
    target_modules = adapted_modules(space, model, base.model_type)
    check_proposals(space, training, model, target_modules)
    encoded = encode_dataset(dataset, tokenizer, config.training.max_length)
    proxy, labels = config.search.proxy, (encoded.train.labels, encoded.validation.labels)
    part = encoded.take(part_of(*labels, proxy, training.seed)) if proxy is not None else None
    if part is not None:
        check_judging(config, dataset, {"part's validation": part.validation.labels})
    with quiet_loading():
        loaded = load_base(base, dataset.label_names, config.training.seed)
    check_rows(loaded, tokenizer, (encoded.train, encoded.validation, encoded.test))
    gpu_share, reason = 1.0, ""
    if hardware.cards and wanted.gpus_per_trial is None:
        needed = largest_trial(space, loaded, encoded.train, target_modules, amp, training.micro_batch_size)
        share = default_share(wanted, config.search.trials, nodes, hardware.cards, needed)
        gpu_share, reason = share.gpus, share.reason
    resources = resolve_resources(wanted, config.search.trials, nodes, gpu_share, coming)
    budget = plan_budget(config.search, training.epochs, training.rungs)
    plan = SweepPlan(
        config,
        dataset,
        encoded,
        base,
        space,
        resources,
        hardware,
        amp,
        budget,
        target_modules,
        reason,
        part=part,
        length_notes=length_notes(model, base, encoded.token_summary()["max"]),
        node_notes=probed.notes,
    )
    return replace(plan, pace=_pace(plan, loaded)) if timed else plan


def _pace(plan: SweepPlan, loaded: LoadedBase) -> Pace | None:
    """Seconds that a row takes in a trial of the space's start; None where nothing can tell.

    On GPUs, which this process leaves alone, and in a cluster a Ray worker finds out.
    """
    starts = plan.space.start_points()
    hyperparameters = plan.space.hyperparameters(starts[0]) if starts else untuned_settings(plan)
    address, resources = plan.config.resources.address, plan.resources
    if address is not None or plan.hardware.cards:
        if not resources.fit(plan.hardware.nodes):
            return None
        return pace_on_node(address, resources, plan.encoded, trial_setup(plan, resources), hyperparameters)
    training, threads = plan.config.training, resources.cpus_per_trial
    try:
        with quiet_loading():
            return measure_pace(loaded, plan.encoded, hyperparameters, training, plan.amp, threads)
    except Exception:  # the model's own code, which raises whatever it likes; a trial would say so
        return None


def alone(plan: SweepPlan) -> Resources:
    """Resources of a single training after the trials; on this machine the cores of all of them, and a whole GPU."""
    resources = plan.resources
    if plan.config.resources.address is not None:
        return resources
    cores = resources.cpus_per_trial * resources.concurrency
    gpus = resources.gpus_per_trial and max(1.0, resources.gpus_per_trial)
    return replace(resources, cpus_per_trial=cores, gpus_per_trial=gpus, concurrency=1)


def trial_setup(plan: SweepPlan, resources: Resources) -> TrialSetup:
    """The setup that all trials of a sweep share. The precision is resolved: on each node `auto` may be another."""
    return TrialSetup(
        base=plan.base,
        training_settings=plan.config.training.model_copy(update={"precision": plan.amp.name}),
        threads=resources.cpus_per_trial,
        gpu_share=resources.gpus_per_trial,
        objective=plan.config.objective,
        storage=plan.config.resources.storage,
        system_metrics=plan.config.system_metrics,
        threshold=plan.config.choice.threshold,
    )


def untuned_settings(plan: SweepPlan) -> Hyperparameters:
    """The untuned default hyperparameters; for a model without presets with the space's first pattern."""
    patterns = [choice for choice in plan.target_modules if choice not in PRESETS]
    return UNTUNED.model_copy(update={"target_modules": patterns[0]}) if patterns else UNTUNED
