"""Optimiser steps whose kernels are launched one by one, with as many rows at once as memory holds."""

from __future__ import annotations

import math

import numpy as np
import torch

from lorasweep.training import devices
from lorasweep.training.data.device_texts import BatchShape, DeviceTexts
from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.losses import RowLosses
from lorasweep.training.loop.out_of_memory import ADVICE, no_memory_for
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.settings import Hyperparameters, TrainingSettings


class EagerSteps:
    """Forward, backward and update, batch after batch.

    If memory runs out, the micro-batch is halved and the step repeated with accumulated gradients, which are exact
    for any micro-batch. Nothing here waits for the device.
    """

    def __init__(
        self,
        state: TrainingState,
        texts: DeviceTexts,
        hyperparameters: Hyperparameters,
        training_settings: TrainingSettings,
        weights: torch.Tensor | None = None,
    ) -> None:
        """Train a state on texts.

        Args:
            state: model and optimiser, updated in place; its gradients are zero between steps.
            weights: of the classes; float32, shape (classes,), on the device.
        """
        self._state, self._texts = state, texts
        self._losses = RowLosses.of(hyperparameters, weights)
        self._max_norm = hyperparameters.max_grad_norm
        self._micro_batch_size = training_settings.micro_batch_size

    def __call__(self, rows: np.ndarray, rate: float) -> torch.Tensor:
        """One optimiser step over a batch; returns its mean loss, on the device, of shape ().

        Args:
            rows: row numbers; int64, shape (rows,).
            rate: learning rate of this step.

        Raises:
            TrainingError: memory is too small for a single row, or for the optimiser.
        """
        loss = self._gradients(rows)
        with no_memory_for("the optimiser's two moments of each trained weight"):
            self._state.apply_gradients(self._max_norm, rate)
        return loss

    def _gradients(self, rows: np.ndarray) -> torch.Tensor:
        """Accumulate the gradients of a batch's mean loss in the state, and return that loss."""
        state = self._state
        while True:
            micro = min(state.micro_batch_size or self._micro_batch_size or len(rows), len(rows))
            try:
                return self._accumulate(rows, micro)
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                last = error if micro == 1 else None
            # Outside of the handler, because the error's frames hold the tensors that are to be freed.
            state.trained.zero_gradients()
            if not self._make_room():
                if last is not None:
                    raise TrainingError(f"out of memory with a single row on the device: {ADVICE}") from last
                state.micro_batch_size = math.ceil(micro / 2)
                state.add_note(
                    f"out of memory: micro-batches of {state.micro_batch_size} rows, gradients accumulated"
                )
            del last
            devices.empty_cache(state.amp.device)

    def _make_room(self) -> bool:
        """Free memory that steps can do without; whether there was any."""
        return False

    def _accumulate(self, rows: np.ndarray, micro: int) -> torch.Tensor:
        """The batch's loss, with its gradients added up `micro` rows at a time."""
        placed = self._texts.place(rows)
        labels, shares = self._targets(placed)
        loss = torch.zeros((), device=labels.device)
        for start in range(0, len(rows), micro):
            part = slice(start, start + micro)
            shape = self._texts.shape(rows[part])
            loss += self._backward(placed[part], shape, labels[part], shares[part])
        return loss

    def _targets(self, placed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels of rows on the device, and what each row's loss counts in the batch's mean loss."""
        labels = self._texts.labels.index_select(0, placed)
        return labels, self._losses.shares(labels)

    def _backward(
        self, placed: torch.Tensor, shape: BatchShape, labels: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """Add the gradients of Σ share · loss over some rows, and return that sum."""
        state = self._state
        with state.amp.autocast():
            logits = state.model(**self._texts.batch(placed, shape.length, shape.full)).logits
        loss = (self._losses(logits.float(), labels) * shares).sum()
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
