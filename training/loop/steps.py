"""The loop's one seam to how a step is computed: kernel by kernel, or captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.loop.captured import CapturedSteps
from lorasweep.training.loop.eager import EagerSteps
from lorasweep.training.loop.graph import Graphs, graphs_for
from lorasweep.training.loop.pooled import PooledSteps
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.settings import Hyperparameters, TrainingSettings


class Steps(Protocol):
    """Makes optimiser steps on a state."""

    def __call__(self, rows: np.ndarray, rate: float) -> torch.Tensor:
        """Train on a batch.

        Args:
            rows: row numbers; int64, shape (rows,).
            rate: learning rate of this step.

        Returns:
            The batch's mean loss, on the device, of shape (). It is not waited for.
        """


def make_steps(
    state: TrainingState,
    texts: DeviceTexts,
    hyperparameters: Hyperparameters,
    training_settings: TrainingSettings,
    weights: torch.Tensor | None = None,
    graphs: Callable[[torch.device], Graphs | None] = graphs_for,
) -> Steps:
    """Captured steps where the device and the trial allow them, else eager ones.

    DeBERTa, T5, DoRA, accumulated micro-batches, texts in chunks, quantised base models and layers computed twice are
    eager.

    Args:
        weights: of the classes; float32, shape (classes,), on the device.
        graphs: device → what captures there, or None.
    """
    if texts.documents is not None:
        return PooledSteps(state, texts, hyperparameters, training_settings, weights)
    config: Any = getattr(state.model, "config", None)
    micro = training_settings.micro_batch_size or state.micro_batch_size
    family = MODEL_FAMILIES.get(getattr(config, "model_type", ""))
    own_way = training_settings.quantize is not None or training_settings.gradient_checkpointing
    if hyperparameters.method == "dora" or micro or own_way or (family is not None and not family.captured):
        captures = None
    else:
        captures = graphs(state.amp.device)
    if captures is None:
        return EagerSteps(state, texts, hyperparameters, training_settings, weights)
    return CapturedSteps(state, texts, hyperparameters, training_settings, weights, captures)
