"""What both sweeps of `sweep.py` are given: the same settings to try, the same rows, budget and machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna

from lorasweep.search_spaces.space import SearchSpace

SHAPE_FILE = "shape.json"
SPACE = Path(__file__).parent / "sweep_space.yaml"


@dataclass(frozen=True)
class Shape:
    """A sweep's size, and everything that decides what its trials do.

    Attributes:
        space: the searched hyperparameters as they stand in the space's file.
        settings: what the trials are to try, in their order, drawn beforehand.
        base_model: folder that transformers loads the base model from.
        model_type: its configuration's.
        bf16: whether training runs in bfloat16.
        concurrency: trials at once.
        threads: of each trial.
    """

    space: dict[str, dict[str, list[Any]]]
    settings: list[dict[str, Any]]
    train_rows: int
    validation_rows: int
    batch_size: int
    epochs: int
    evaluations_per_epoch: int
    grace_rungs: int
    reduction_factor: int
    max_length: int
    seed: int
    base_model: str
    model_type: str
    bf16: bool
    concurrency: int
    threads: int

    @property
    def rungs(self) -> int:
        """Evaluations of a full trial."""
        return self.epochs * self.evaluations_per_epoch

    @property
    def rung_steps(self) -> int:
        """Optimiser steps from one evaluation to the next.

        Raises:
            ValueError: they are not the same between all evaluations, which `Trainer` cannot do.
        """
        steps = -(-self.train_rows // self.batch_size) * self.epochs
        if steps % self.rungs:
            raise ValueError(f"{steps} steps do not divide into {self.rungs} rungs")
        return steps // self.rungs

    def write(self, folder: Path) -> None:
        """Keep it for the process that runs the sweep in `folder`."""
        (folder / SHAPE_FILE).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """What `write` has written."""
        return cls(**json.loads((folder / SHAPE_FILE).read_text(encoding="utf-8")))


def draw_settings(space: SearchSpace, count: int, seed: int) -> list[dict[str, Any]]:
    """The space's known-good start, then settings at random: the same for the same seed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    drawn = [study.ask(space.distributions()).params for _ in range(count - 1)]
    return [*space.start_points()[:1], *drawn]
