"""How long training takes, measured on a few steps before there is a trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lorasweep.training.data.batches import epoch_batches, evaluation_batches, evaluation_size
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.loop.steps import make_steps
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Hyperparameters, TrainingSettings

# Timed steps at most, and the seconds after which no further one begins.
STEPS, SECONDS = 8, 1.0
# Steps on a GPU before one of the same batch is timed: by then its shape is a graph, as in nearly all of a training.
GRAPH_STEPS = 6
# Predicted rows at most.
ROWS = 32


@dataclass(frozen=True)
class Pace:
    """Seconds that one row takes: a training step's share of it, and its prediction."""

    trained: float
    predicted: float

    def rung(self, train: int, validation: int, settings: TrainingSettings) -> float:
        """Seconds between two evaluations of a trial, with one of them.

        Args:
            train, validation: rows of the splits.
        """
        return train * settings.epochs / settings.rungs * self.trained + validation * self.predicted


def measure_pace(
    loaded: LoadedBase,
    data: EncodedDataset,
    hyperparameters: Hyperparameters,
    training_settings: TrainingSettings,
    amp: AmpPolicy,
    threads: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace:
    """Train a few steps, and predict one batch; the model is thrown away.

    Seconds are shared among a batch's padded tokens, of which other batches may have more or fewer.

    Args:
        loaded: the base model; it stays as it is.
        amp: with the device.
        threads: of a trial.
        clock: in seconds.

    Raises:
        Exception: whatever the model's own code raises.
    """
    with _as_a_trial(threads):
        checkpointing = training_settings.gradient_checkpointing
        model = build_classifier(
            loaded, hyperparameters, training_settings.seed, amp, checkpointing=checkpointing
        )
        state = TrainingState.start(model, hyperparameters, amp)
        train, validation = (
            device_texts(model, texts, amp.device) for texts in (data.train, data.validation)
        )
        batches = epoch_batches(
            data.train.lengths, hyperparameters.batch_size, training_settings.seed, epoch=0
        )
        step = make_steps(state, train, hyperparameters, training_settings)
        seconds: list[float] = []
        tokens: list[int] = []
        graphs = amp.device.type == "cuda"
        while len(seconds) <= STEPS and sum(seconds) < SECONDS:
            rows = batches[len(seconds) % len(batches)]
            for _ in range(GRAPH_STEPS if graphs else 0):
                float(step(rows, 0.0))
            begun = clock()
            float(step(rows, 0.0))
            seconds.append(clock() - begun)
            tokens.append(train.shape(train.windows(rows)).tokens)
        # The first step allocates, and some libraries compile as they meet a shape.
        warm = slice(1, None) if len(seconds) > 1 else slice(None)
        each = sum(seconds[warm]) / sum(tokens[warm])
        trained = each * sum(train.shape(train.windows(rows)).tokens for rows in batches) / len(data.train)

        model.eval()
        evaluations = list(evaluation_batches(validation.lengths, *evaluation_size(amp.device)))
        rows = evaluations[len(evaluations) // 2][:ROWS]
        with torch.inference_mode(), amp.autocast():
            if graphs:
                float(model(**validation.batch(rows)).logits.sum())
            begun = clock()
            logits = model(**validation.batch(rows)).logits
            if graphs:
                float(logits.sum())  # waits for the device
            each = (clock() - begun) / validation.shape(rows).tokens
        predicted = each * sum(validation.shape(rows).tokens for rows in evaluations)
    return Pace(trained, predicted / len(data.validation))


@contextmanager
def _as_a_trial(threads: int) -> Iterator[None]:
    """A trial's number of threads, for a while, and random numbers that nobody misses."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=()):
            yield
    finally:
        torch.set_num_threads(before)
