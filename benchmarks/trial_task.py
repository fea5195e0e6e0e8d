"""What the contenders of `trial.py` are given, what is measured of them, and what they have in common."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from gemm import wait
from torch import nn

from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import score
from lorasweep.training.settings import Hyperparameters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Task:
    """What every contender is given.

    Attributes:
        data: its training rows are trained on, its validation rows predicted.
        padded_to: tokens to which the notebook's loop pads every row.
        padded_rows: rows that loop trains on, if not all: its batches are all of one shape, so a few show its rate.
    """

    loaded: LoadedBase
    tokenizer: PreTrainedTokenizerBase
    data: EncodedDataset
    hyperparameters: Hyperparameters
    amp: AmpPolicy
    padded_to: int
    padded_rows: int | None = None


@dataclass(frozen=True)
class Measured:
    """One contender in one round.

    Attributes:
        training, evaluation: samples a second.
        seconds: of training.
        shapes: (rows, tokens) of each training batch, padding included.
        padding: tokens computed in training for each token of text.
        loss: mean cross entropy over the validation rows after training.
        memory: greatest memory of tensors on a GPU while training, in bytes; 0 on a CPU.
    """

    training: float
    evaluation: float
    seconds: float
    shapes: tuple[tuple[int, int], ...]
    padding: float
    loss: float
    memory: int


class Contender(ABC):
    """A way to train a trial; a new one is made, with a fresh model, for each round."""

    name: ClassVar[str]
    copies_base: ClassVar[bool] = True

    def __init__(self, task: Task, seed: int):
        self.task, self.seed = task, seed
        self.rows = task.data.train
        self.model = self.build()

    @abstractmethod
    def build(self) -> nn.Module:
        """A fresh model with its adapter, and whatever trains it."""

    @abstractmethod
    def train(self) -> float:
        """One pass over the training rows; returns its seconds."""

    @abstractmethod
    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits of the validation rows, (rows, classes), and their labels, in any order."""

    def measure(self) -> Measured:
        """Train and evaluate."""
        device = self.task.amp.device
        shapes: list[tuple[int, int]] = []

        def record(module: nn.Module, _: Any, inputs: dict[str, Any]) -> None:
            if module.training:
                shapes.append(tuple(inputs["input_ids"].shape))

        hook = self.model.register_forward_pre_hook(record, with_kwargs=True)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = self.train()
        hook.remove()
        memory = self._peak_memory(device) if device.type == "cuda" else 0
        wait(device)
        started = time.perf_counter()
        logits, labels = self.predict()
        evaluation_seconds = time.perf_counter() - started
        return Measured(
            training=len(self.rows) / seconds,
            evaluation=len(labels) / evaluation_seconds,
            seconds=seconds,
            shapes=tuple(shapes),
            padding=sum(rows * tokens for rows, tokens in shapes) / len(self.rows.input_ids),
            loss=score(logits, labels).loss,
            memory=memory,
        )

    def _peak_memory(self, device: torch.device) -> int:
        peak = torch.cuda.max_memory_allocated(device)
        # A contender on a copy would not have had the one that it was copied from.
        copied = self.task.loaded.model.parameters() if self.copies_base else ()
        return peak - sum(parameter.nbytes for parameter in copied)


def measure(contender: type[Contender], task: Task, seed: int) -> Measured:
    """One contender's round, and nothing left of it."""
    measured = contender(task, seed).measure()
    gc.collect()
    if task.amp.device.type == "cuda":
        torch.cuda.empty_cache()
    return measured
