"""`SweepWinner`: the chosen trial as Python sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.results import TestScores, Thresholds

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweepWinner:
    """The chosen trial.

    Attributes:
        id: the trial's.
        hyperparameters: all of them, searched or not.
        score: best validation score, by the sweep's metric.
        test: scores on the test split, which was looked at once.
        interval: 95 % bootstrap interval of each test score, (low, high).
        rule: why it won, in words.
        compared: test scores of the winner and of what it is compared with, a row each.
        thresholds: those of `--threshold`, with the test scores that they give; None without.
    """

    id: str
    hyperparameters: Hyperparameters
    score: float
    test: TestScores
    interval: dict[str, tuple[float, float]]
    rule: str
    compared: pd.DataFrame = field(repr=False, compare=False)
    thresholds: Thresholds | None = None

    def _repr_html_(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.hyperparameters)
        return f"<p><b>{self.id}</b>: {escape(settings)}</p>{self.compared.to_html()}"
