"""Records of a small sweep, for the tests of plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lorasweep.training.settings import Hyperparameters, Metric
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord
from lorasweep.tuning.report.plots.data import PlotData, plot_data

KINDS: dict[str, BaseDistribution] = {
    "rank": CategoricalDistribution((4, 8, 16, 32)),
    "alpha": CategoricalDistribution((8, 16, 32)),
    "base_dropout": CategoricalDistribution((None, 0.0, 0.1)),
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "dropout": FloatDistribution(0.0, 0.3),
    "batch_size": IntDistribution(8, 64),
}


def trial(
    number: int, scores: Sequence[float | None], state: str = "completed", **settings: Any
) -> TrialRecord:
    """A record with one evaluation for each score; its own score is the last one."""
    drawn = {
        "rank": (4, 8, 16, 32)[number % 4],
        "alpha": float((8, 16, 32)[number % 3]),
        "base_dropout": (None, 0.0, 0.1)[number % 3],
        "learning_rate": 1e-4 * 10 ** (number % 9 / 4),
        "dropout": 0.02 * (number % 7),
        "batch_size": 8 + number % 5,
    } | settings
    return TrialRecord(
        id=f"t{number:03d}",
        number=number,
        state=state,  # type: ignore[arg-type]
        hyperparameters=Hyperparameters.model_validate({"method": "lora", **drawn}),
        searched=tuple(KINDS),
        evaluations=tuple(
            EvaluationRecord(rung=rung, epoch=rung / 2, accuracy=score, score=score)
            for rung, score in enumerate(scores, 1)
        ),
        score=scores[-1] if scores else None,
        trainable_parameters=1000 * (1 + number),
    )


TRIALS = [
    trial(0, [0.3, 0.5, 0.6]),
    trial(1, [0.2], "stopped"),
    trial(2, [], "failed"),
    trial(3, [0.4, 0.7, 0.9]),
    trial(4, [0.35, 0.33], "running"),
    trial(5, [0.1, math.nan], "failed"),
]


def drawn(trials: Sequence[TrialRecord], metric: Metric = "accuracy", winner: str | None = None) -> PlotData:
    """What plots show of these trials, by the space's distributions."""
    return plot_data(trials, metric, winner, kinds=KINDS)
