"""Warm start: an older sweep's trials for a new sweep's sampler to learn from."""

from __future__ import annotations

from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from lorasweep.search_spaces.domains import Choice, IntRange, Range, show
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.errors import SettingsError
from lorasweep.training.metrics import metric_words
from lorasweep.training.settings import Hyperparameters, Metric
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials, running_best
from lorasweep.tuning.search.study import STATES
from lorasweep.tuning.sweep.plan.plan import SweepPlan
from lorasweep.tuning.sweep.winner.choice import best_by

SOURCE = "lorasweep.from"
# Those that ended by the older sweep's own rules.
LEARNT_FROM = ("completed", "stopped")


class WarmStart(NamedTuple):
    """What a new sweep takes from an older one.

    Attributes:
        trials: for the new study. The sampler learns from them; they are no trials of the new sweep, and its
            stopping rule ignores them.
        start: hyperparameters of the new sweep's first trial: the older one's best.
        notes: differences between the sweeps that make the old scores less informative.
        best: the older sweep's best trial, with its score by the new sweep's metric.
    """

    trials: list[FrozenTrial]
    start: dict[str, Any]
    notes: list[str]
    best: TrialRecord


def earlier_trials(other: SweepRecord, plan: SweepPlan) -> WarmStart:
    """Take an older sweep's scored trials into a new sweep, with their scores by the new one's objective.

    What the older sweep was judged by does not matter: each evaluation on record has every metric.

    Raises:
        SettingsError: the spaces differ, or no trial has a score by the new sweep's objective and metric.
    """
    config = other.config
    here, there = plan.space, other.space
    where = f"--warm-start {other.name}"
    if not isinstance(here, SearchSpace) or not isinstance(there, SearchSpace):
        raise SettingsError(f"{where}: works only between search spaces that are YAML files; leave it out")
    differing = differences(here, there)
    if differing:
        raise SettingsError(f"{where}: the spaces differ in {'; '.join(differing)}; use the same --space")
    objective, metric = plan.config.objective, plan.config.training.metric
    # A finalist repeats a trial's hyperparameters on other rows, so its scores do not compare with the others'.
    ended = [trial for trial in other.trials if trial.state in LEARNT_FROM and trial.finalist_of is None]
    trials = [
        _frozen(trial, here.distributions(), objective, other)
        for trial in ended
        if _scores(trial, objective, config.objective)
    ]
    ranked = rank_trials(
        (trial.model_copy(update={"score": _best(trial, metric, config.training.metric)}) for trial in ended),
        metric,
    )
    if not trials or not ranked:
        names = " and ".join(metric_words(name) for name in dict.fromkeys((objective, metric)))
        raise SettingsError(
            f"{where}: none of its trials has its validation {names} on record; name another sweep, or leave it out"
        )
    start = {name: getattr(ranked[0].hyperparameters, name) for name in here.searched}
    return WarmStart(trials, start, _notes(other, plan), ranked[0])


def _frozen(
    trial: TrialRecord, distributions: dict[str, BaseDistribution], objective: Metric, other: SweepRecord
) -> FrozenTrial:
    """A trial's record as one of Optuna's."""
    scores = _scores(trial, objective, other.config.objective)
    best = running_best(scores.values(), objective)
    return optuna.trial.create_trial(
        state=STATES[trial.state],
        value=best[-1] if trial.state == "completed" else None,
        params={name: getattr(trial.hyperparameters, name) for name in distributions},
        distributions=distributions,
        intermediate_values=dict(zip(scores, best, strict=True)),
        user_attrs={SOURCE: other.name},
    )


def _scores(trial: TrialRecord, objective: Metric, own: Metric) -> dict[int, float]:
    """Rung → a trial's score by the objective; by its sweep's own, the records may hold the running best alone."""
    found = {}
    for evaluation in trial.evaluations:
        score = evaluation.by(objective)
        score = evaluation.judged if score is None and objective == own else score
        if score is not None:
            found[evaluation.rung] = score
    return found


def _best(trial: TrialRecord, metric: Metric, own: Metric) -> float | None:
    return trial.score if metric == own else best_by(trial, metric)


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


def _own_base(other: SweepRecord) -> str | None:
    """The base model of all its trials; None where the space, which is compared itself, names them."""
    return None if other.plan.get("bases") else other.config.base_model


def _notes(other: SweepRecord, plan: SweepPlan) -> list[str]:
    """Other data, base model or budget shift the scores, but mostly keep their order."""
    then, now = other.plan, plan.summary()
    pairs = {
        "data": (then.get("data", {}).get("fingerprint"), now["data"]["fingerprint"]),
        "base model": (_own_base(other), None if plan.bases else plan.config.base_model),
        "part of the rows": (other.config.search.proxy, plan.config.search.proxy),
        "epochs": (other.config.training.epochs, plan.config.training.epochs),
    }
    differing = [name for name, (there, here) in pairs.items() if there != here]
    if not differing:
        return []
    return [f"{other.name} had different {', '.join(differing)}: its scores are used as they are"]
