"""What a trial needs to go on exactly as if it had never stopped, and its file form."""

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

from lorasweep.training.errors import ModelError
from lorasweep.training.model.classifier import load_weights, save_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import Scores
from lorasweep.training.settings import Hyperparameters

STATE_FILE = "trial.json"
OPTIMIZER_FILE = "optimizer.safetensors"
WEIGHTS_FOLDER = "weights"


@dataclass(frozen=True)
class Evaluation:
    """One rung: where training stood and how the model scored on the validation split.

    Attributes:
        rung: evaluations so far, from 1.
        step: optimiser steps so far.
        epoch: passes over the training rows so far, with its fraction.
        learning_rate: at the last step.
        train_loss: mean loss over the steps since the rung before, in nats.
        scores: on the validation split.
        seconds: the trial's time so far, evaluations included, summed over its restarts.
        samples_per_second: training rows a second since the rung before, evaluation left out.
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
        """As plain numbers: the scores beside the rest, without the logits."""
        entries = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("scores", "logits")}
        return entries | asdict(self.scores)


@dataclass
class TrainingState:
    """The moving parts of one trial; the loop changes them, a checkpoint holds them.

    A checkpoint folder has the trained weights in PEFT's or transformers' own format, AdamW's moments and the
    random states as safetensors, and the rest as JSON: nothing in it is pickled.

    Attributes:
        step: optimiser steps done.
        rung: evaluations done.
        seconds: the trial's time so far.
        train_loss: the last rung's.
        micro_batch_size: what the device's memory has allowed, once it has run out; before that, None.
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
        """A trial's beginning: fresh optimiser, nothing done yet."""
        trained = [p for p in model.parameters() if p.requires_grad]
        # Decay pulls matrices towards zero; biases and norms are left alone, as is usual for transformers.
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
        scalars = {
            "step": self.step,
            "rung": self.rung,
            "seconds": self.seconds,
            "train_loss": self.train_loss,
            "micro_batch_size": self.micro_batch_size,
            "scaler": self.scaler.state_dict(),
        }
        (folder / STATE_FILE).write_text(json.dumps(scalars, indent=1))

    def load(self, folder: Path) -> None:
        """Take over a checkpoint's weights, optimiser, place and random states.

        Raises:
            ModelError: the folder is no checkpoint, or one of other settings.
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
            self.step, self.rung, self.seconds = scalars["step"], scalars["rung"], scalars["seconds"]
            self.train_loss = scalars["train_loss"]
            self.micro_batch_size = scalars["micro_batch_size"]
            torch.set_rng_state(tensors["random.cpu"])
            if "random.cuda" in tensors and self.amp.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self.amp.device)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(f"{folder}: not a whole checkpoint ({str(error).splitlines()[0]})") from error
