"""Recorded learning curves, and a surrogate of training: settings are answered by the nearest recorded ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

RUNGS = 12
METRICS = ("accuracy", "macro_f1", "loss")

# Distances are in doublings of the learning rate: what one doubling of each setting is worth. Set from what is
# known of LoRA beforehand, not fitted: 40 curves a set are too few to fit five weights and test them too.
WEIGHTS = {
    # The one setting that moves LoRA from chance to its best and back.
    "learning_rate": 1.0,
    # Multiplies the adapters' update as the rate does, but not the head's, which is trained from nothing.
    "scale": 0.5,
    # Half of it is twice the steps in the same epochs, worth between half a doubling of the rate and one.
    "batch_size": 0.5,
    # With alpha / rank held still, the best rate hardly depends on the rank, and little else does.
    "rank": 0.25,
}
# Other modules change how many matrices move; with the rate tuned, the sets differ by a point or two.
OTHER_MODULES = 0.75


@dataclass(frozen=True)
class Curve:
    """One recorded trial: its scores at each evaluation, and how long each took in seconds.

    Fewer than `RUNGS` evaluations where its loss was not finite any more.

    Attributes:
        validation: metric → scores of the rows by which a search decides.
        held_out: metric → scores of other rows, which say what its decision is worth.
    """

    settings: Mapping[str, Any]
    validation: Mapping[str, tuple[float, ...]]
    held_out: Mapping[str, tuple[float, ...]]
    seconds: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.seconds)

    def best(self, metric: str = "accuracy") -> float:
        """The validation score of the trial when it is not stopped: that of its best evaluation."""
        scores = self.validation[metric]
        return min(scores, default=np.inf) if metric == "loss" else max(scores, default=0.0)

    def worth(self, metric: str = "accuracy", of: str | None = None) -> float:
        """The held-out score at the evaluation that is the best by `of` (or `metric`) on the validation rows."""
        scores = self.validation[of or metric]
        if not scores:
            return np.inf if metric == "loss" else 0.0
        chosen = int(np.argmin(scores) if (of or metric) == "loss" else np.argmax(scores))
        return self.held_out[metric][chosen]


@dataclass(frozen=True)
class Errors:
    """How well a curve's held-out score is predicted by its nearest neighbour, the curve itself left out.

    `nearest` and `mean` are mean absolute errors: of the neighbour, and of all others' mean.
    """

    nearest: float
    mean: float
    rank_correlation: float


class Surrogate:
    """Answers settings with a real curve. The same settings get the same curve: nothing is drawn or mixed."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = list(curves)
        self._places = np.array([place(curve.settings) for curve in curves])
        self._modules = np.array([str(curve.settings["target_modules"]) for curve in curves])

    def number(self, settings: Mapping[str, Any]) -> int:
        """The place of the nearest recorded settings; of equally near ones the first recorded."""
        return int(np.argmin(self._squares(settings)))

    def curve(self, settings: Mapping[str, Any]) -> Curve:
        """The curve of the nearest recorded settings."""
        return self.curves[self.number(settings)]

    def leave_one_out(self, metric: str = "accuracy") -> Errors:
        """Each curve predicted by the others."""
        worth = np.array([curve.worth(metric) for curve in self.curves])
        predicted = np.empty_like(worth)
        for number, curve in enumerate(self.curves):
            squares = self._squares(curve.settings)
            squares[number] = np.inf
            predicted[number] = worth[np.argmin(squares)]
        others = (worth.sum() - worth) / (len(worth) - 1)
        return Errors(
            nearest=float(np.abs(predicted - worth).mean()),
            mean=float(np.abs(others - worth).mean()),
            rank_correlation=float(spearmanr(predicted, worth).statistic),
        )

    def _squares(self, settings: Mapping[str, Any]) -> np.ndarray:
        squares: np.ndarray = np.square(self._places - place(settings)).sum(axis=1)
        squares += OTHER_MODULES**2 * (self._modules != settings["target_modules"])
        return squares


def place(settings: Mapping[str, Any]) -> np.ndarray:
    """Where settings lie, weighted so that Euclid's distance is the surrogate's; target modules are apart."""
    values = {
        "learning_rate": settings["learning_rate"],
        "scale": settings["alpha"] / settings["rank"],
        "batch_size": settings["batch_size"],
        "rank": settings["rank"],
    }
    return np.array([weight * np.log2(values[name]) for name, weight in WEIGHTS.items()])


def load_curves(path: Path) -> list[Curve]:
    """What `record_curves.py` has recorded so far."""
    curves = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        evaluations = entry["evaluations"]
        ends = [evaluation["seconds"] for evaluation in evaluations]
        curves.append(
            Curve(
                settings=entry["settings"],
                validation={name: tuple(each[name] for each in evaluations) for name in METRICS},
                held_out={name: tuple(each["held_out"][name] for each in evaluations) for name in METRICS},
                seconds=tuple(float(step) for step in np.diff(ends, prepend=0.0)),
            )
        )
    return curves


def recorded(path: Path, entry: str) -> list[int]:
    """A number of each of a file's curves, such as their `train_rows`."""
    return [int(json.loads(line)[entry]) for line in path.read_text().splitlines()]
