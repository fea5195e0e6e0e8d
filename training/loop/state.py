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

from lorasweep.training import devices
from lorasweep.training.errors import ModelError, first_line
from lorasweep.training.loop.flat import RATIO, FlatParameters
from lorasweep.training.loop.rates import rate_ratios
from lorasweep.training.model.classifier import load_weights, save_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scorer import Scores
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
        trained: the trained parameters and their gradient, flat; the optimiser works on these.
        step: optimiser steps done.
        rung: evaluations done.
        seconds: the trial's time so far.
        train_loss: at the last rung.
        losses: on the validation split, of each evaluation so far.
        micro_batch_size: rows that fit on the device, once memory has run out; None before that.
        notes: lines for the trial's record, each once.
    """

    model: nn.Module
    trained: FlatParameters
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    amp: AmpPolicy
    step: int = 0
    rung: int = 0
    seconds: float = 0.0
    train_loss: float = 0.0
    losses: tuple[float, ...] = ()
    micro_batch_size: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def start(cls, model: nn.Module, hyperparameters: Hyperparameters, amp: AmpPolicy) -> TrainingState:
        """The state of a new trial, with a fresh optimiser; the model's trained parameters become flat."""
        # Only the lean LoRA layers read a copy in the AMP type.
        shadow_type = amp.dtype if hyperparameters.method in ("lora", "rslora") else None
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        trained = FlatParameters(parameters.values(), shadow_type, rate_ratios(parameters, hyperparameters))
        optimizer = trained.adamw(hyperparameters.learning_rate, hyperparameters.weight_decay)
        return cls(model, trained, optimizer, amp.grad_scaler(), amp)

    def apply_gradients(self, max_norm: float, rate: float) -> None:
        """Take an optimiser step with the gradient so far, and set it to 0; nothing here waits for the device.

        Args:
            max_norm: to which the gradient is clipped.
            rate: the learning rate, which the ratios of some parameters multiply.
        """
        self.scaler.unscale_(self.optimizer)
        self.trained.clip_gradients(max_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group[RATIO]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.trained.zero_gradients()
        self.trained.refresh_shadow()

    def add_note(self, line: str) -> None:
        """Add a line for the trial's record, if it is not there yet."""
        if line not in self.notes:
            self.notes = (*self.notes, line)

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        save_weights(self.model, folder / WEIGHTS_FOLDER)
        tensors = {"random.cpu": torch.get_rng_state()}
        random = devices.random_state(self.amp.device)
        if random is not None:
            tensors["random.cuda"] = random
        # Step counts are shared by parameters, and safetensors refuses tensors that share memory.
        tensors |= {
            name: value.cpu() if value.dim() else value.cpu().clone()
            for name, value in self.trained.optimizer_tensors().items()
        }
        save_file(tensors, folder / OPTIMIZER_FILE)
        scalars = {name: getattr(self, name) for name in SCALARS}
        scalars |= {"scaler": self.scaler.state_dict(), "notes": self.notes, "losses": self.losses}
        (folder / STATE_FILE).write_text(json.dumps(scalars, indent=1))

    def load(self, folder: Path) -> None:
        """Restore a checkpoint's weights, optimiser, position and random states.

        Raises:
            ModelError: the folder is not a complete checkpoint, or one of other hyperparameters.
        """
        load_weights(self.model, folder / WEIGHTS_FOLDER)
        self.trained.refresh_shadow()
        try:
            scalars = json.loads((folder / STATE_FILE).read_text())
            tensors = load_file(folder / OPTIMIZER_FILE)
            self.trained.load_optimizer_tensors(tensors)
            # Empty if the trial ran in a type without a scaler, which starts anew then.
            if scalars["scaler"]:
                self.scaler.load_state_dict(scalars["scaler"])
            for name in SCALARS:
                setattr(self, name, scalars[name])
            # Checkpoints of before have neither of these.
            self.losses = tuple(scalars.get("losses", ()))
            for line in scalars.get("notes", ()):
                self.add_note(line)
            torch.set_rng_state(tensors["random.cpu"])
            devices.set_random_state(self.amp.device, tensors.get("random.cuda"))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(f"{folder}: not a complete checkpoint ({first_line(error)})") from error
