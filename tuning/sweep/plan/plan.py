"""What a sweep that has passed every check will do, before its first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lorasweep.search_spaces.space import Space
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.data.summary import data_notes, describe, token_notes
from lorasweep.training.loop.pace import Pace
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.target_modules import PRESETS
from lorasweep.training.settings import UNTUNED, Hyperparameters, Precision
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.machine import git_state, machine
from lorasweep.tuning.search.stopping import Budget, stopping_rule
from lorasweep.tuning.trials.hardware import Hardware
from lorasweep.tuning.trials.shares import Resources
from lorasweep.tuning.trials.trial import TrialSetup

if TYPE_CHECKING:
    pass


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
        base: the sweep's own base model.
        target_modules: choice of target modules → names of the modules of this base model that it adapts at most.
        share_reason: why a trial gets its share of a GPU, on one line; empty where the user has named one.
        before: the precision of the sweep's earlier trials, if there are any.
        pace: seconds that a row takes, from a few steps; None where no node has room for a trial yet.
        estimate: seconds that the sweep takes by that pace.
        part: the part of the rows on which the search runs; None for all rows.
        length_notes: what to know of texts that are longer than the base model is used to.
        node_notes: what the user should know of unequal nodes of a cluster, a sentence each.
        bases: name → base model, where the space chooses it; the sweep's own comes first.
        base_parameters: name → parameters of each base model.
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
    bases: Mapping[str, BaseModel] = field(default_factory=dict)
    base_parameters: Mapping[str, int] = field(default_factory=dict)

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
            *self._notes_of_others(),
            *self.length_notes,
            *self.hardware.notes(self.config.training.precision, self.amp),
            *filter(None, [self.resources.growth_note(self.hardware.nodes)]),
            *self.node_notes,
            *self._other_precision(),
            *self._too_short(),
        ]

    def _notes_of_others(self) -> list[str]:
        """What is lost of the texts by the tokenizers of other base models than the sweep's own."""
        return [
            f"{name}: {note}"
            for name, data in self.encoded.by_base.items()
            for note in token_notes(data.token_summary())
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
            "bases": {
                name: asdict(base) | {"parameters": self.base_parameters.get(name)}
                for name, base in self.bases.items()
            },
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
        bases=plan.bases,
        threshold=plan.config.choice.threshold,
    )


def untuned_settings(plan: SweepPlan, base_model: str | None = None) -> Hyperparameters:
    """The untuned default hyperparameters; for a model without presets with the space's first pattern.

    Args:
        base_model: that of the winner, where the space chooses it.
    """
    patterns = [choice for choice in plan.target_modules if choice not in PRESETS]
    targets = {"target_modules": patterns[0]} if patterns else {}
    return UNTUNED.model_copy(update=targets | {"base_model": base_model})
