"""Made-up learning curves, in which the learning rate alone decides."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from surrogate import RUNGS, Curve

RATES = (3e-4, 6e-4, 1.2e-3, 2e-3, 2.5e-3, 5e-3)


def settings(rate: float, **others: Any) -> dict[str, Any]:
    """Settings of the default space."""
    values = {
        "rank": 16,
        "alpha": 32,
        "target_modules": "all-linear",
        "learning_rate": rate,
        "batch_size": 32,
    }
    return values | others


def worth(rate: float, best_rate: float) -> float:
    """Accuracy at the end: 0.9 at the best rate, a tenth less for each doubling away from it."""
    return 0.9 - 0.1 * abs(math.log2(rate / best_rate))


def curve(rate: float = 2e-3, best_rate: float = 2e-3, luck: float = 0.0, rungs: int = RUNGS) -> Curve:
    """A curve that rises to its worth; `luck` is what its validation rows have beyond the held-out ones."""
    accuracies = [worth(rate, best_rate) * (0.5 + 0.5 * rung / RUNGS) for rung in range(1, rungs + 1)]
    scores = {"accuracy": accuracies, "macro_f1": accuracies, "loss": [2 - each for each in accuracies]}
    return Curve(
        settings=settings(rate),
        validation={name: tuple(value + luck for value in values) for name, values in scores.items()},
        held_out={name: tuple(values) for name, values in scores.items()},
        seconds=(1.0,) * rungs,
    )


def curves(best_rate: float = 2e-3) -> list[Curve]:
    """A set's curves, one for each of `RATES`."""
    return [curve(rate, best_rate) for rate in RATES]


def write(path: Path, made: list[Curve], first: int = 0) -> Path:
    """As `record_curves.py` writes them, numbered from `first` on."""
    lines = []
    for number, each in enumerate(made, first):
        evaluations = [
            {
                **{name: values[rung] for name, values in each.validation.items()},
                "seconds": sum(each.seconds[: rung + 1]),
                "held_out": {name: values[rung] for name, values in each.held_out.items()},
            }
            for rung in range(len(each))
        ]
        lines.append(
            json.dumps(
                {"number": number, "train_rows": 12, "settings": each.settings, "evaluations": evaluations}
            )
        )
    path.write_text("\n".join(lines) + "\n")
    return path
