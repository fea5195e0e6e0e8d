"""The one training loop: a generator that yields an `Evaluation` at each rung."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from lorasweep.training.data.batches import DeviceTexts, epoch_batches
from lorasweep.training.data.encoding import EncodedDataset
from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.scores.scores import predict_logits, score
from lorasweep.training.settings import Hyperparameters, TrainingSettings

# Steps between checks of the loss on a GPU: each check waits for the device.
LOSS_CHECK_STEPS = 25
# Beginning of the reason why a trial diverged.
NOT_FINITE = "loss is not finite"


@dataclass(frozen=True)
class Schedule:
    """A trial's rungs and its learning rate, by optimiser steps."""

    steps_per_epoch: int
    steps: int
    rung_steps: tuple[int, ...]
    warmup_steps: int

    @classmethod
    def of(cls, rows: int, hyperparameters: Hyperparameters, training_settings: TrainingSettings) -> Schedule:
        """The schedule of a full trial over `rows` training rows."""
        per_epoch = math.ceil(rows / hyperparameters.batch_size)
        steps, rungs = per_epoch * training_settings.epochs, training_settings.rungs
        rung_steps = tuple(max(1, round(steps * rung / rungs)) for rung in range(1, rungs + 1))
        return cls(per_epoch, steps, rung_steps, math.ceil(steps * hyperparameters.warmup))

    def rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at a step: linear warm-up, then linear decay to zero.

        The decay covers the full budget, even if a scheduler stops the trial early.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return (self.steps - step) / max(1, self.steps - self.warmup_steps)


def fine_tune(
    state: TrainingState,
    data: EncodedDataset,
    hyperparameters: Hyperparameters,
    training_settings: TrainingSettings,
    *,
    batches: Callable[[int], list[np.ndarray]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Evaluation]:
    """Train from where `state` is to the end of the budget; yield at each rung.

    `state` may be saved while the generator is suspended. Training that continues from a loaded state gives the
    same numbers as one that never stopped.

    Args:
        state: model, optimiser and position; updated in place.
        batches: epoch → row numbers of each batch; batches of similar length by the settings' seed if None.
        clock: monotonic, in seconds.

    Raises:
        TrainingError: the loss is not finite, or memory is too small for a single row.
    """
    model, amp = state.model, state.amp
    schedule = Schedule.of(len(data.train), hyperparameters, training_settings)
    train = device_texts(model, data.train, amp.device)
    validation = device_texts(model, data.validation, amp.device)
    weights = (
        torch.from_numpy(data.class_weights()).to(amp.device) if training_settings.class_weights else None
    )
    batches = batches or partial(
        epoch_batches, data.train.lengths, hyperparameters.batch_size, training_settings.seed
    )
    check_steps = LOSS_CHECK_STEPS if amp.device.type == "cuda" else 1
    started, seconds_before = clock(), state.seconds
    rate = hyperparameters.learning_rate * schedule.rate_factor(max(0, state.step - 1))
    for rung in range(state.rung, training_settings.rungs):
        rung_started, rung_first_step, rows_seen = clock(), state.step, 0
        losses = torch.zeros((), device=amp.device)
        while state.step < schedule.rung_steps[rung]:
            epoch, position = divmod(state.step, schedule.steps_per_epoch)
            if position == 0 or state.step == rung_first_step:
                order = batches(epoch)
            rate = hyperparameters.learning_rate * schedule.rate_factor(state.step)
            losses += _step(state, train, order[position], hyperparameters, training_settings, weights)
            state.apply_gradients(hyperparameters.max_grad_norm, rate)
            rows_seen += len(order[position])
            state.step += 1
            if state.step % check_steps == 0:
                _check_finite(float(losses), state.step, rate, amp.name)
        # With fewer steps than rungs some rungs add no step and repeat the previous loss.
        if state.step > rung_first_step:
            state.train_loss = float(losses) / (state.step - rung_first_step)
        train_seconds = clock() - rung_started
        logits = predict_logits(model, validation, amp)
        scores = score(logits, data.validation.labels)
        _check_finite(state.train_loss + scores.loss, state.step, rate, amp.name)
        state.rung = rung + 1
        state.seconds = seconds_before + clock() - started
        yield Evaluation(
            rung=state.rung,
            step=state.step,
            epoch=state.step / schedule.steps_per_epoch,
            learning_rate=rate,
            train_loss=state.train_loss,
            scores=scores,
            seconds=state.seconds,
            samples_per_second=rows_seen / max(train_seconds, 1e-9),
            logits=logits,
        )


def _step(
    state: TrainingState,
    texts: DeviceTexts,
    rows: np.ndarray,
    hyperparameters: Hyperparameters,
    training_settings: TrainingSettings,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """Accumulate the gradients of a batch; returns its mean loss, on the device, of shape ().

    If memory runs out, the micro-batch is halved and the step repeated with accumulated gradients.
    """
    while True:
        micro = min(state.micro_batch_size or training_settings.micro_batch_size or len(rows), len(rows))
        try:
            loss = _backward(state, texts, rows, micro, hyperparameters.label_smoothing, weights)
            break
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if micro == 1:
                raise TrainingError(
                    "out of memory with a single row on the device: lower max_length, rank or the number of "
                    "concurrent trials"
                ) from error
            state.micro_batch_size = math.ceil(micro / 2)
        # Outside the handler: the error's frames hold the tensors that are to be freed.
        state.trained.zero_gradients()
        if state.amp.device.type == "cuda":
            torch.cuda.empty_cache()
    return loss


def _backward(
    state: TrainingState,
    texts: DeviceTexts,
    rows: np.ndarray,
    micro: int,
    label_smoothing: float,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """Accumulate the gradients of a batch's mean loss, `micro` rows at a time; exact for any `micro`."""
    device = state.amp.device
    labels = texts.labels[texts.place(rows)]
    total = weights[labels].sum() if weights is not None else float(len(rows))
    loss = torch.zeros((), device=device)
    for start in range(0, len(rows), micro):
        part = slice(start, start + micro)
        with state.amp.autocast():
            logits = state.model(**texts.batch(rows[part])).logits
        part_loss = (
            F.cross_entropy(
                logits.float(), labels[part], weights, reduction="sum", label_smoothing=label_smoothing
            )
            / total
        )
        state.scaler.scale(part_loss).backward()  # type: ignore[no-untyped-call]
        loss += part_loss.detach()
    return loss


def _out_of_memory(error: BaseException) -> bool:
    # The CPU's allocator has no exception class.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _check_finite(loss: float, step: int, rate: float, precision: str) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"{NOT_FINITE} ({loss}) at step {step}, learning rate {rate:.2g}, {precision}: "
            "training diverged; lower the learning rate, or alpha, which scales it"
        )
