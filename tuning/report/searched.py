"""What a sweep searched: each setting as Optuna knows it, what each trial drew, and what decided the scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from lorasweep.search_spaces.fields import adapter_settings
from lorasweep.training.settings import Hyperparameters, Metric, higher_is_better
from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.search.study import first_number

ADAPTER_SETTINGS = adapter_settings()
# Below so many trials with a score, an importance is a reading of noise.
IMPORTANCE_TRIALS = 4
# Without its distribution a number is taken for log-uniform when its values spread this far.
LOG_SPREAD = 30


@dataclass(frozen=True)
class Searched:
    """What a sweep searched.

    Attributes:
        distributions: name → as Optuna knows it; in a define-by-run space its branches together.
        values: trial → name → value. A trial lacks what it did not draw, or has no use for.
    """

    distributions: Mapping[str, BaseDistribution]
    values: Mapping[str, Mapping[str, Any]]


def searched_of(
    trials: Sequence[TrialRecord],
    study: optuna.Study | None = None,
    known: Mapping[str, BaseDistribution] | None = None,
) -> Searched:
    """What the trials drew, and from what.

    Args:
        study: the sweep's; without it the records' own settings are read.
        known: the space's distributions; where neither has one, the values seen must tell.
    """
    first = first_number(study) if study else 0
    frozen = {trial.number - first: trial for trial in study.get_trials(deepcopy=False)} if study else {}
    found: dict[str, list[BaseDistribution]] = {name: [kind] for name, kind in (known or {}).items()}
    drawn: dict[str, dict[str, Any]] = {}
    for trial in trials:
        own = frozen.get(trial.number)
        values = {
            name: getattr(trial.hyperparameters, name)
            for name in trial.searched
            if name in Hyperparameters.model_fields
        }
        if own is not None and own.params:
            values = dict(own.params)
            for name, kind in own.distributions.items():
                kinds = found.setdefault(name, [])
                kinds += [kind] if kind not in kinds else []
        unused = ADAPTER_SETTINGS if trial.hyperparameters.method == "full" else ()
        drawn[trial.id] = {name: value for name, value in values.items() if name not in unused}
    distributions = {}
    for name in dict.fromkeys([*found, *(name for values in drawn.values() for name in values)]):
        seen = [values[name] for values in drawn.values() if name in values]
        kind = _joined(found.get(name, [])) or _guessed(seen)
        if kind is not None:
            distributions[name] = kind
    fitting = {
        trial: {
            name: _own(value, distributions[name])
            for name, value in values.items()
            if name in distributions and _fits(value, distributions[name])
        }
        for trial, values in drawn.items()
    }
    return Searched(distributions, fitting)


def _joined(kinds: Sequence[BaseDistribution]) -> BaseDistribution | None:
    if len(kinds) < 2:
        return kinds[0] if kinds else None
    if all(isinstance(kind, CategoricalDistribution) for kind in kinds):
        return CategoricalDistribution(tuple(dict.fromkeys(c for kind in kinds for c in kind.choices)))
    if any(isinstance(kind, CategoricalDistribution) for kind in kinds):
        return None
    low, high = min(kind.low for kind in kinds), max(kind.high for kind in kinds)
    return FloatDistribution(low, high, log=low > 0 and any(kind.log for kind in kinds))


def _guessed(seen: Sequence[Any]) -> BaseDistribution | None:
    distinct = list(dict.fromkeys(seen))
    if len(distinct) < 2:
        return None
    if all(is_number(value) for value in distinct):
        low, high = min(distinct), max(distinct)
        return FloatDistribution(low, high, log=low > 0 and high / low >= LOG_SPREAD)
    return CategoricalDistribution(tuple(distinct))


def _fits(value: Any, kind: BaseDistribution) -> bool:
    if isinstance(kind, CategoricalDistribution):
        return value in kind.choices
    return is_number(value) and kind.low <= value <= kind.high


def _own(value: Any, kind: BaseDistribution) -> Any:
    """The choice itself: a record holds 32.0 where the space says 32."""
    return kind.choices[kind.choices.index(value)] if isinstance(kind, CategoricalDistribution) else value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def scored_trials(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Those with a finite score."""
    return [trial for trial in trials if is_number(trial.score)]


def importance_of(searched: Searched, trials: Sequence[TrialRecord], metric: Metric) -> dict[str, float]:
    """How much each searched setting decided which trials are among the best; in all 1, the largest first.

    Optuna's PED-ANOVA (Watanabe et al., arXiv 2304.10255) over a copy of the study in which every trial with
    a score is COMPLETE with its best one: Optuna itself would leave out the trials that ASHA stopped, and
    with them most of what is known of bad settings. PED-ANOVA only asks who is in the best part, and ASHA
    stops trials for not being there, so that their smaller budget does little harm. The best part is a tenth
    of the trials, but 5 where there are so many, and at most a third.

    Returns:
        Nothing with fewer than `IMPORTANCE_TRIALS` scores, or when all are equal.
    """
    scored = scored_trials(trials)
    if len(scored) < IMPORTANCE_TRIALS or len({trial.score for trial in scored}) < 2:
        return {}
    frozen = [
        optuna.trial.create_trial(
            value=trial.score,
            params=dict(searched.values.get(trial.id, {})),
            distributions={name: searched.distributions[name] for name in searched.values.get(trial.id, {})},
        )
        for trial in scored
    ]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        copy = optuna.create_study(direction="maximize" if higher_is_better(metric) else "minimize")
        copy.add_trials(frozen)
        part = min(1 / 3, max(0.1, 5 / len(scored)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=part)
            found = optuna.importance.get_param_importances(copy, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: float(share) for name, share in found.items()}
