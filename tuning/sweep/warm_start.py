"""Warm start: an older sweep's trials for a new sweep's sampler to learn from."""

from __future__ import annotations

from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from lorasweep.search_spaces.domains import Choice, IntRange, Range, show
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.results import TrialRecord
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.search.study import open_study
from lorasweep.tuning.sweep.plan import SweepPlan

SOURCE = "lorasweep.from"


class WarmStart(NamedTuple):
    """What a new sweep takes from an older one.

    Attributes:
        trials: for the new study. The sampler learns from them; they are no trials of the new sweep, and its
            stopping rule ignores them.
        start: hyperparameters of the new sweep's first trial: the older one's best.
        notes: differences between the sweeps that make the old scores less informative.
        best: the older sweep's best trial.
    """

    trials: list[FrozenTrial]
    start: dict[str, Any]
    notes: list[str]
    best: TrialRecord


def earlier_trials(other: SweepRecord, plan: SweepPlan) -> WarmStart:
    """Take an older sweep's scored trials into a new sweep.

    Raises:
        SettingsError: the spaces or the metrics differ, or no trial has a score.
    """
    config = other.config
    here, there = plan.space, other.space
    where = f"--warm-start {other.name}"
    if not isinstance(here, SearchSpace) or not isinstance(there, SearchSpace):
        raise SettingsError(f"{where}: works only between search spaces that are YAML files; leave it out")
    differing = differences(here, there)
    if differing:
        raise SettingsError(f"{where}: the spaces differ in {'; '.join(differing)}; use the same --space")
    if config.training.metric != plan.config.training.metric:
        raise SettingsError(
            f"{where}: its metric is {config.training.metric}, here it is {plan.config.training.metric}; "
            f"use --metric {config.training.metric}"
        )
    distributions = here.distributions()
    trials = [
        optuna.trial.create_trial(
            state=trial.state,
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            params=trial.params,
            distributions=distributions,
            intermediate_values=trial.intermediate_values,
            user_attrs={SOURCE: other.name},
        )
        for trial in open_study(other.folder.study_url, other.name).get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and trial.params.keys() == distributions.keys()
    ]
    ranked = other.ranked()
    if not trials or not ranked:
        raise SettingsError(f"{where}: none of its trials has a score; name another sweep, or leave it out")
    start = {name: getattr(ranked[0].hyperparameters, name) for name in distributions}
    return WarmStart(trials, start, _notes(other, plan), ranked[0])


def differences(here: SearchSpace, there: SearchSpace) -> list[str]:
    """Hyperparameters that the two spaces treat differently, with both treatments."""
    lines = []
    for name in Hyperparameters.model_fields:
        ours, theirs = _treated(here, name), _treated(there, name)
        if ours != theirs:
            lines.append(f"{name} ({_shown(ours)} here, {_shown(theirs)} there)")
    return lines


def _treated(space: SearchSpace, name: str) -> object:
    return space.parameters.get(name, Hyperparameters.model_fields[name].default)


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Choice | Range | IntRange) else show(value)


def _notes(other: SweepRecord, plan: SweepPlan) -> list[str]:
    """Other data, base model or budget shift the scores, but mostly keep their order."""
    then, now = other.plan, plan.summary()
    pairs = {
        "data": (then.get("data", {}).get("fingerprint"), now["data"]["fingerprint"]),
        "base model": (other.config.base_model, plan.config.base_model),
        "part of the rows": (other.config.search.proxy, plan.config.search.proxy),
        "epochs": (other.config.training.epochs, plan.config.training.epochs),
    }
    differing = [name for name, (there, here) in pairs.items() if there != here]
    if not differing:
        return []
    return [f"{other.name} had different {', '.join(differing)}: its scores are used as they are"]
