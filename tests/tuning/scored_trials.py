"""Records of trials whose score follows from their settings, for tests of what a sweep's trials show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord, trial_id


def scored(
    space: SearchSpace, settings: Sequence[Mapping[str, Any]], scores: Sequence[float | None], **fields: Any
) -> list[TrialRecord]:
    """A completed trial for each of the settings."""
    return [
        TrialRecord(
            id=trial_id(number),
            number=number,
            state="completed" if score is not None else "failed",
            hyperparameters=space.hyperparameters(values),
            searched=tuple(space.searched),
            evaluations=() if score is None else (EvaluationRecord(rung=1, accuracy=score, score=score),),
            score=score,
            best_rung=None if score is None else 1,
            **fields,
        )
        for number, (values, score) in enumerate(zip(settings, scores, strict=True))
    ]


def drawn(
    space: SearchSpace, count: int, score: Callable[[Hyperparameters], float], *, seed: int = 0
) -> list[TrialRecord]:
    """Trials at random, each with the score of its hyperparameters."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    settings = [study.ask(space.distributions()).params for _ in range(count)]
    return scored(space, settings, [score(space.hyperparameters(values)) for values in settings])
