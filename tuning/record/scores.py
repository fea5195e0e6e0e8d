"""JSON records of scores on the test split."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from lorasweep.training.metrics import ALWAYS, Metric


class TestScores(BaseModel):
    """Scores on the test split; in JSON all stand side by side.

    Attributes:
        accuracy, macro_f1, loss: in [0, 1], [0, 1] and nats.
        more: further scores by metric; empty in older records, and without those that the rows do not define.
    """

    model_config = ConfigDict(frozen=True)
    __test__ = False  # pytest would collect it by its name

    accuracy: float
    macro_f1: float
    loss: float
    more: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, entries: Any) -> Any:
        if not isinstance(entries, dict):
            return entries
        own = {name: value for name, value in entries.items() if name in cls.model_fields}
        further = {name: value for name, value in entries.items() if name not in own}
        return {**own, "more": {**own.get("more", {}), **further}}

    @model_serializer
    def _side_by_side(self) -> dict[str, float]:
        return self.values()

    def by(self, metric: Metric) -> float:
        """The score by one metric; NaN where it is not on record."""
        return float(getattr(self, metric) if metric in ALWAYS else self.more.get(metric, math.nan))

    def values(self) -> dict[str, float]:
        """Every score on record by its metric."""
        return {**{metric: self.by(metric) for metric in ALWAYS}, **self.more}


class Thresholds(BaseModel):
    """Probabilities from which on labels are predicted, in place of the most probable class.

    Attributes:
        rule: what they were chosen by on the validation split, or the number that was given.
        values: label → probability; of two classes the positive one's.
        test: the winner's test scores with them.
        interval: 95 % bootstrap interval of each of these, (low, high).
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    rule: str
    values: dict[str, float]
    test: TestScores
    interval: dict[str, tuple[float, float]] = {}
