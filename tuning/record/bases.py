"""The base models of a sweep's trials: which each trial has, and how well and how large the best of each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lorasweep.training.metrics import Metric
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials

if TYPE_CHECKING:
    from lorasweep.tuning.record.sweep import SweepRecord

# Exports hold fp32.
BYTES = 4


@dataclass(frozen=True)
class BaseSummary:
    """The trials of one base model, by the best of them.

    Attributes:
        name: as the space names it, or the sweep's own.
        trials: how many there are.
        best: id of the best one; None where none has a score.
        score: of the best one.
        parameters: of the base model, with the head; None where an older plan lacks it.
        trained: parameters that the best trial trains.
        adapter_mb, merged_mb: megabytes of its weights, exported as an adapter, and as a whole model. After full
            fine-tuning both are the whole model's.
        samples_per_second: training rows a second of the best trial.
        latency_ms: milliseconds to predict one text, with the best trial's adapter beside the base model, as it was
            trained; None before the sweep's end.
    """

    name: str
    trials: int
    best: str | None = None
    score: float | None = None
    parameters: int | None = None
    trained: int | None = None
    adapter_mb: float | None = None
    merged_mb: float | None = None
    samples_per_second: float | None = None
    latency_ms: float | None = None

    @property
    def label(self) -> str:
        """Its short name."""
        return base_label(self.name)


def base_name(sweep: SweepRecord, hyperparameters: Hyperparameters) -> str:
    """The name of a trial's base model: the one it chose, or the sweep's own."""
    return hyperparameters.base_model or sweep.config.base_model


def base_label(name: str) -> str:
    """A base model's short name: of a folder its last part, as the rest of a path says nothing to others."""
    return Path(name).name if Path(name).is_absolute() else name


def base_entry(sweep: SweepRecord, hyperparameters: Hyperparameters) -> Mapping[str, Any]:
    """What the sweep's plan knows of a trial's base model: `hub_id`, `revision`, `model_type` and more."""
    bases = sweep.plan.get("bases")
    name = hyperparameters.base_model
    found = bases.get(name) if isinstance(bases, Mapping) and name is not None else None
    found = found if found is not None else sweep.plan.get("base_model", {})
    return found if isinstance(found, Mapping) else {}


def base_summaries(sweep: SweepRecord) -> list[BaseSummary]:
    """The base models that the trials chose among, the best first; empty where there was one for all."""
    bases = sweep.plan.get("bases")
    if not isinstance(bases, Mapping) or len(bases) < 2:
        return []
    found = [_summary(name, entry, sweep) for name, entry in bases.items()]
    order = [trial.id for trial in sweep.ranked()]
    return sorted(found, key=lambda base: order.index(base.best) if base.best else len(order))


def base_entries(sweep: SweepRecord) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [asdict(base) for base in base_summaries(sweep)]


def trials_of_base(name: str, trials: Sequence[TrialRecord], own: str) -> list[TrialRecord]:
    """The trials of one base model.

    Args:
        own: the sweep's own base model, which trials have that name none.
    """
    return [trial for trial in trials if (trial.hyperparameters.base_model or own) == name]


def best_of_base(name: str, trials: Sequence[TrialRecord], own: str, metric: Metric) -> TrialRecord | None:
    """The best trial of one base model; None where none has a score."""
    found = trials_of_base(name, trials, own)
    # Scores of finalists and of trials on a part of the rows do not compare.
    last = [trial for trial in found if trial.finalist_of is not None]
    ranked = rank_trials(last, metric) or rank_trials(found, metric)
    return ranked[0] if ranked else None


def _summary(name: str, entry: Mapping[str, Any], sweep: SweepRecord) -> BaseSummary:
    own = sweep.config.base_model
    trials = len(trials_of_base(name, sweep.trials, own))
    best = best_of_base(name, sweep.trials, own, sweep.metric)
    parameters = entry.get("parameters")
    if best is None:
        return BaseSummary(name, trials, parameters=parameters)
    speeds = [e.samples_per_second for e in best.evaluations if e.samples_per_second]
    full = best.hyperparameters.method == "full"
    whole = parameters and BYTES * parameters / 1e6
    adapter = best.trainable_parameters and BYTES * best.trainable_parameters / 1e6
    return BaseSummary(
        name,
        trials,
        best.id,
        best.score,
        parameters,
        best.trainable_parameters,
        whole if full else adapter,
        whole,
        median(speeds) if speeds else None,
        sweep.result.latency_ms.get(name) if sweep.result else None,
    )
