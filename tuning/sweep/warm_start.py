"""An older sweep's results for a new sweep's sampler to learn from, where the two ask the same question."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lorasweep.search_spaces.domains import Choice, IntRange, Range, show
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters, higher_is_better
from lorasweep.tuning.record.folder import SweepFolder, rank_trials
from lorasweep.tuning.search.study import open_study
from lorasweep.tuning.sweep.plan import SweepPlan

SOURCE = "lorasweep.from"


def earlier_trials(
    other: SweepFolder, plan: SweepPlan
) -> tuple[list[FrozenTrial], dict[str, Any], list[str]]:
    """An older sweep's trials for a new study, its best settings as a start, and what makes them less telling.

    The trials count neither as the new sweep's own nor for ASHA: they tell the sampler alone where to look.

    Raises:
        SettingsError: the spaces differ (in which names, is said), the metrics do, or nothing was scored.
    """
    config = other.config()
    here, there = plan.space, other.space(config.search.space)
    where = f"--warm-start {other.name}"
    if not isinstance(here, SearchSpace) or not isinstance(there, SearchSpace):
        raise SettingsError(f"{where}: needs spaces that are YAML files, here and there; leave it out")
    differing = differences(here, there)
    if differing:
        raise SettingsError(f"{where}: the spaces differ in {'; '.join(differing)}; use the same --space")
    if config.training.metric != plan.config.training.metric:
        raise SettingsError(
            f"{where}: its metric is {config.training.metric}, here it is {plan.config.training.metric}; "
            f"use --metric {config.training.metric}"
        )
    distributions = here.distributions()
    found = [
        optuna.trial.create_trial(
            state=trial.state,
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            params=trial.params,
            distributions=distributions,
            intermediate_values=trial.intermediate_values,
            user_attrs={SOURCE: other.name},
        )
        for trial in open_study(other.study_url, other.name).get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and trial.params.keys() == distributions.keys()
    ]
    ranked = rank_trials(other.trials(), higher_is_better(config.training.metric))
    if not found or not ranked:
        raise SettingsError(f"{where}: none of its trials has a score; name another sweep, or leave it out")
    start = {name: getattr(ranked[0].hyperparameters, name) for name in distributions}
    return found, start, _notes(other, plan)


def differences(here: SearchSpace, there: SearchSpace) -> list[str]:
    """Hyperparameters that the two spaces treat differently, each with both ways."""
    found = []
    for name in Hyperparameters.model_fields:
        ours, theirs = _treated(here, name), _treated(there, name)
        if ours != theirs:
            found.append(f"{name} ({_shown(ours)} here, {_shown(theirs)} there)")
    return found


def _treated(space: SearchSpace, name: str) -> object:
    return space.parameters.get(name, Hyperparameters.model_fields[name].default)


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Choice | Range | IntRange) else show(value)


def _notes(other: SweepFolder, plan: SweepPlan) -> list[str]:
    """Other data, base model or budget: scores of another level, but mostly of the same order."""
    then, now = other.plan(), plan.summary()
    pairs = {
        "data": (then.get("data", {}).get("fingerprint"), now["data"]["fingerprint"]),
        "base model": (other.config().base_model, plan.config.base_model),
        "epochs": (other.config().training.epochs, plan.config.training.epochs),
    }
    differing = [name for name, (there, here) in pairs.items() if there != here]
    if not differing:
        return []
    return [f"{other.name} had other {', '.join(differing)}: its scores are taken as they are"]
