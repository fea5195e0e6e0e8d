"""The one training loop: a generator that yields an `Evaluation` at each rung."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from lorasweep.training.data.batches import epoch_batches
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.early_end import ends_early
from lorasweep.training.loop.out_of_memory import no_memory_for
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.training.loop.steps import Steps, make_steps
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.heads import start_at_rates
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.scores import predict_logits
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
    cosine: bool = False

    @classmethod
    def of(cls, rows: int, hyperparameters: Hyperparameters, training_settings: TrainingSettings) -> Schedule:
        """The schedule of a full trial over `rows` training rows."""
        per_epoch = math.ceil(rows / hyperparameters.batch_size)
        steps, rungs = per_epoch * training_settings.epochs, training_settings.rungs
        rung_steps = tuple(max(1, round(steps * rung / rungs)) for rung in range(1, rungs + 1))
        warmup_steps = math.ceil(steps * hyperparameters.warmup)
        return cls(per_epoch, steps, rung_steps, warmup_steps, hyperparameters.schedule == "cosine")

    def rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at a step: linear warm-up, then decay to zero, linear or as half a cosine.

        The decay covers the full budget, even if a scheduler stops the trial early.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return (1 - math.cos(math.pi * left)) / 2 if self.cosine else left


def fine_tune(
    state: TrainingState,
    data: EncodedDataset,
    hyperparameters: Hyperparameters,
    training_settings: TrainingSettings,
    *,
    batches: Callable[[int], list[np.ndarray]] | None = None,
    steps: Callable[..., Steps] = make_steps,
    clock: Callable[[], float] = time.perf_counter,
    scorer: Scorer | None = None,
) -> Iterator[Evaluation]:
    """Train from where `state` is to the end of the budget, or to its early end; yield at each rung.

    `state` may be saved while the generator is suspended. Training that continues from a loaded state gives the
    same numbers as one that never stopped.

    Args:
        state: model, optimiser and position; updated in place.
        batches: epoch → row numbers of each batch; batches of similar length by the settings' seed if None.
        steps: makes what trains on a batch; called as `make_steps` is.
        clock: monotonic, in seconds.
        scorer: scores the validation split; by the settings' metric, and all of the task, if None.

    Raises:
        TrainingError: the loss is not finite, or memory is too small for a single row or for the optimiser.
    """
    model, amp = state.model, state.amp
    scorer = scorer or Scorer.of(data.label_names, training_settings.positive, training_settings.metric)
    schedule = Schedule.of(len(data.train), hyperparameters, training_settings)
    weights = None
    with no_memory_for("the tokens of the texts"):
        train, validation = (
            device_texts(model, texts, amp.device) for texts in (data.train, data.validation)
        )
        if training_settings.class_weights or hyperparameters.class_weights == "inverse":
            weights = torch.from_numpy(data.class_weights()).to(amp.device)
    step = steps(state, train, hyperparameters, training_settings, weights)
    batches = batches or partial(
        epoch_batches,
        data.train.lengths,
        hyperparameters.batch_size,
        training_settings.seed,
        labels=data.train.labels if hyperparameters.sampling == "balanced" else None,
    )
    if state.step == 0 and data.multi_label:
        start_at_rates(model, data.train.labels[np.concatenate(batches(0))], weights)
    check_steps = LOSS_CHECK_STEPS if amp.device.type == "cuda" else 1
    started, seconds_before = clock(), state.seconds
    rate = hyperparameters.learning_rate * schedule.rate_factor(max(0, state.step - 1))
    for rung in range(state.rung, training_settings.rungs):
        if ends_early(state.losses, training_settings.early_end):
            return
        rung_started, rung_first_step, rows_seen = clock(), state.step, 0
        losses = torch.zeros((), device=amp.device)
        while state.step < schedule.rung_steps[rung]:
            epoch, position = divmod(state.step, schedule.steps_per_epoch)
            if position == 0 or state.step == rung_first_step:
                order = batches(epoch)
            rate = hyperparameters.learning_rate * schedule.rate_factor(state.step)
            losses += step(order[position], rate)
            rows_seen += len(order[position])
            state.step += 1
            if state.step % check_steps == 0:
                _check_finite(float(losses), state.step, rate, amp.name)
        # With fewer steps than rungs some rungs add no step and repeat the previous loss.
        if state.step > rung_first_step:
            state.train_loss = float(losses) / (state.step - rung_first_step)
        train_seconds = clock() - rung_started
        logits = predict_logits(model, validation, amp)
        scores = scorer.score(logits, data.validation.labels)
        _check_finite(state.train_loss + scores.loss, state.step, rate, amp.name)
        state.rung = rung + 1
        state.losses = (*state.losses, scores.loss)
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


def _check_finite(loss: float, step: int, rate: float, precision: str) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"{NOT_FINITE} ({loss}) at step {step}, learning rate {rate:.2g}, {precision}: "
            "training diverged; lower the learning rate, or alpha, which scales it"
        )
