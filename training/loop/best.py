"""The best evaluation of a training so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lorasweep.training.settings import Metric, higher_is_better


@dataclass
class Best:
    """The best score so far and the rung that reached it.

    Attributes:
        metric: says whether a higher score is better.
        score: NaN before the first evaluation, and as long as no evaluation had a number.
        rung: counts from 1; 0 before the first evaluation.
    """

    metric: Metric
    score: float = math.nan
    rung: int = 0

    def update(self, score: float, rung: int) -> bool:
        """Take in an evaluation; whether it is the best so far.

        Of equal scores the later one counts, as Ray keeps the later of two equal checkpoints.
        """
        better = score >= self.score if higher_is_better(self.metric) else score <= self.score
        first_number = math.isnan(self.score) and not math.isnan(score)
        if better or first_number or not self.rung:
            self.score, self.rung = score, rung
            return True
        return False
