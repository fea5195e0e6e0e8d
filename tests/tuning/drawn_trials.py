"""Records of a small sweep, and what is read back from the figures that are drawn of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.record.results import EvaluationRecord

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


def only(figure: Figure | None) -> Axes:
    """The first axes of a figure that must be there."""
    assert figure is not None
    return figure.axes[0]


def texts(figure: Figure) -> list[str]:
    """All texts of a figure's legend."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]
