"""Trials with captured steps on a CPU, and what tells whether they are the eager ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trials import dataset, settings, trained
from tiny_trials import start as start_trial
from torch import nn

from lorasweep.training import devices
from lorasweep.training.data import device_texts
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.training.loop.steps import make_steps
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.faster.mask import make_masks_without_waiting
from lorasweep.training.settings import Hyperparameters, TrainingSettings

# Batches of these epochs repeat their shapes.
SHARED = settings(epochs=8, evaluations_per_epoch=1, class_weights=True)


def compute_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gather batches by torch, not by numpy, and keep the CPU's random numbers for a GPU's."""
    monkeypatch.setattr(device_texts, "library", lambda device: torch)
    monkeypatch.setattr(devices, "random_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(devices, "set_random_state", lambda device, state: torch.set_rng_state(state))


def start(base: LoadedBase, chosen: Hyperparameters) -> TrainingState:
    """A new trial, with masks made as on a GPU."""
    state = start_trial(base, chosen)
    model: Any = state.model
    make_masks_without_waiting(model if chosen.method == "full" else model.get_base_model())
    return state


def capturing(graphs: Any) -> Callable[..., Any]:
    return partial(make_steps, graphs=lambda device: graphs)


def both(
    bert: LoadedBase,
    chosen: Hyperparameters,
    graphs: Any,
    shared: TrainingSettings = SHARED,
    prepare: Callable[[TrainingState], None] = lambda state: None,
) -> tuple[TrainingState, list[Evaluation], TrainingState, list[Evaluation]]:
    """State and evaluations of a captured trial, then of the same with eager steps."""
    results: list[Any] = []
    for steps in (capturing(graphs), make_steps):
        state = start(bert, chosen)
        prepare(state)
        results += [state, list(fine_tune(state, dataset(), chosen, shared, steps=steps))]
    return tuple(results)  # type: ignore[return-value]


def assert_same(
    state: TrainingState, evaluations: list[Evaluation], other: TrainingState, others: list[Evaluation]
) -> None:
    assert len(evaluations) == len(others)
    for one, two in zip(evaluations, others, strict=True):
        assert one.train_loss == pytest.approx(two.train_loss, rel=1e-4)
        np.testing.assert_allclose(one.logits, two.logits, rtol=1e-3, atol=1e-4)
    for name, weight in trained(other.model).items():
        torch.testing.assert_close(trained(state.model)[name], weight, rtol=1e-3, atol=1e-5, msg=name)


class Counting(nn.Module):
    """A model that counts its passes in training by rows and tokens."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.passes: list[tuple[int, int]] = []

    def forward(self, **inputs: torch.Tensor) -> Any:
        if self.training:
            self.passes.append(tuple(inputs["input_ids"].shape))  # type: ignore[arg-type]
        return self.inner(**inputs)


def equal_lengths(*lengths: int) -> Callable[[int], list[np.ndarray]]:
    """Batches of eight rows whose longest has these lengths, in this order."""
    rows = np.argsort(dataset().train.lengths, kind="stable")
    ordered = dataset().train.lengths[rows]
    return lambda epoch: [
        np.append(rows[:7], rows[int(np.searchsorted(ordered, length))]) for length in lengths
    ]
