"""The state of a trial, from which training continues as if it had never stopped, and its checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lorasweep.training.errors import ModelError, first_line
from lorasweep.training.model.classifier import load_weights, save_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import Scores
from lorasweep.training.settings import Hyperparameters

STATE_FILE = "trial.json"
OPTIMIZER_FILE = "optimizer.safetensors"
WEIGHTS_FOLDER = "weights"
# Numbers of a `TrainingState` that a checkpoint holds.
SCALARS = ("step", "rung", "seconds", "train_loss", "micro_batch_size")


@dataclass(frozen=True)
class Evaluation:
    """One rung: the position in training, and the scores on the validation split.

    Attributes:
        rung: number of the evaluation, from 1.
        step: optimiser steps so far.
        epoch: passes over the training rows so far, as a fraction.
        learning_rate: at the last step.
        train_loss: mean over the steps since the previous rung, in nats.
        scores: on the validation split.
        seconds: the trial's time so far, with evaluations, summed over its restarts.
        samples_per_second: training rows per second since the previous rung, without evaluation.
        logits: of the validation rows; float32, shape (rows, classes).
    """

    rung: int
    step: int
    epoch: float
    learning_rate: float
    train_loss: float
    scores: Scores
    seconds: float
    samples_per_second: float
    logits: np.ndarray = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name: the scores beside the rest, without the logits."""
        entries = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("scores", "logits")}
        return entries | asdict(self.scores)


@dataclass
class TrainingState:
    """All that changes during a trial; the loop updates it, a checkpoint holds it.

    A checkpoint folder has the trained weights in PEFT's or transformers' format, AdamW's moments and the random
    states as safetensors, and the rest as JSON. Nothing in it is pickled.

    Attributes:
        step: optimiser steps done.
        rung: evaluations done.
        seconds: the trial's time so far.
        train_loss: at the last rung.
        micro_batch_size: rows that fit on the device, once memory has run out; None before that.
    """

    model: nn.Module
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    amp: AmpPolicy
    step: int = 0
    rung: int = 0
    seconds: float = 0.0
    train_loss: float = 0.0
    micro_batch_size: int | None = None

    @classmethod
    def start(cls, model: nn.Module, hyperparameters: Hyperparameters, amp: AmpPolicy) -> TrainingState:
        """The state of a new trial, with a fresh optimiser."""
        trained = [p for p in model.parameters() if p.requires_grad]
        # As usual for transformers, only matrices decay, not biases and norms.
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": hyperparameters.weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=hyperparameters.learning_rate, fused=True
        )
        return cls(model, optimizer, amp.grad_scaler(), amp)

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        save_weights(self.model, folder / WEIGHTS_FOLDER)
        tensors = {"random.cpu": torch.get_rng_state()}
        if self.amp.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.amp.device)
        for number, entry in self.optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                tensors[f"adamw.{number}.{name}"] = value.detach().cpu().contiguous()
        save_file(tensors, folder / OPTIMIZER_FILE)
        scalars = {name: getattr(self, name) for name in SCALARS} | {"scaler": self.scaler.state_dict()}
        (folder / STATE_FILE).write_text(json.dumps(scalars, indent=1))

    def load(self, folder: Path) -> None:
        """Restore a checkpoint's weights, optimiser, position and random states.

        Raises:
            ModelError: the folder is not a complete checkpoint, or one of other hyperparameters.
        """
        load_weights(self.model, folder / WEIGHTS_FOLDER)
        try:
            scalars = json.loads((folder / STATE_FILE).read_text())
            tensors = load_file(folder / OPTIMIZER_FILE)
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith("adamw."):
                    _, number, name = key.split(".", 2)
                    moments.setdefault(int(number), {})[name] = value
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
            self.scaler.load_state_dict(scalars["scaler"])
            for name in SCALARS:
                setattr(self, name, scalars[name])
            torch.set_rng_state(tensors["random.cpu"])
            if "random.cuda" in tensors and self.amp.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self.amp.device)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(f"{folder}: not a complete checkpoint ({first_line(error)})") from error
