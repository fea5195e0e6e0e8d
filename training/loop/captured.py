"""Optimiser steps whose forward and backward pass is one launch: a CUDA graph for each shape of a batch.

The update stays outside of the graphs. On flat buffers it is a few launches, which the host queues while the graph
still runs; the learning rate and the gradient scaler need no special form, and a graph's gradients can be compared
with those of an eager step before they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lorasweep.training import devices
from lorasweep.training.data.device_texts import BatchShape, DeviceTexts
from lorasweep.training.errors import first_line
from lorasweep.training.loop.eager import EagerSteps
from lorasweep.training.loop.graph import Graphs
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.settings import Hyperparameters, TrainingSettings

# Eager steps of a shape before it is captured; rare shapes are never captured.
EAGER_STEPS = 3
# Steps of a training until which the first capture waits for all shapes seen so far to be ready: captured together,
# the largest first, they take the memory of the largest alone.
FIRST_CAPTURE = 24
# Largest difference of a replay from the eager step, as a share of a gradient's norm. Another kernel for the same
# product differs by rounding, up to 2 % in bf16 after 12 layers and 0.2 % in TF32; a wrong input by far more.
TOLERANCES = {None: 0.01, torch.bfloat16: 0.05, torch.float16: 0.05}


@dataclass
class _Shape:
    """What is known of a shape of batches.

    Attributes:
        steps: eager ones so far.
        example: row numbers of such a batch.
        rows: row numbers that the graph reads, on the device.
        loss: that the graph writes.
        replay: launches the graph; None before the capture.
        proven: whether a replay has been compared with an eager step.
    """

    steps: int
    example: np.ndarray
    rows: torch.Tensor
    loss: torch.Tensor
    replay: Callable[[], None] | None = None
    proven: bool = False


class CapturedSteps(EagerSteps):
    """Steps that replay a captured one, where the batch has the full number of rows and a shape that repeats.

    The first replay of each shape is compared with an eager step on the same rows and state. If it differs, or
    anything else goes wrong, all further steps are eager, and a note in the state says why.
    """

    def __init__(
        self,
        state: TrainingState,
        texts: DeviceTexts,
        hyperparameters: Hyperparameters,
        training_settings: TrainingSettings,
        weights: torch.Tensor | None,
        graphs: Graphs,
    ) -> None:
        """Train a state on texts.

        Args:
            graphs: captures the steps.
        """
        super().__init__(state, texts, hyperparameters, training_settings, weights)
        self._graphs: Graphs | None = graphs
        self._full_batch = hyperparameters.batch_size
        self._shapes: dict[BatchShape, _Shape] = {}

    def _gradients(self, rows: np.ndarray) -> torch.Tensor:
        shape = self._find(rows)
        if shape is None:
            return super()._gradients(rows)
        if not shape.proven:
            return self._prove(shape, rows)
        try:
            return self._replay(shape, rows)
        except Exception as error:
            self._give_up(error)
        self._state.trained.zero_gradients()
        return super()._gradients(rows)

    def _make_room(self) -> bool:
        if not any(shape.replay for shape in self._shapes.values()):
            return False
        self._give_up("their memory was needed")
        return True

    def _find(self, rows: np.ndarray) -> _Shape | None:
        """The captured shape of these rows; None where the step has to be eager."""
        if self._graphs is None or self._state.micro_batch_size or len(rows) != self._full_batch:
            return None
        key = self._texts.shape(rows)
        if key not in self._shapes:
            placed = self._texts.place(rows)
            self._shapes[key] = _Shape(0, rows, placed.clone(), torch.zeros((), device=placed.device))
        shape = self._shapes[key]
        if shape.replay is None:
            if self._time_to_capture(shape):
                self._capture_all()
            else:
                shape.steps += 1
                shape.example = rows
        return shape if shape.replay is not None else None

    def _time_to_capture(self, shape: _Shape) -> bool:
        steps = [other.steps for other in self._shapes.values()]
        all_ready = min(steps) >= EAGER_STEPS
        return shape.steps >= EAGER_STEPS and (all_ready or sum(steps) >= FIRST_CAPTURE)

    def _capture_all(self) -> None:
        """Capture the shapes that are ready, the largest first."""
        device = self._state.amp.device
        random = devices.random_state(device)
        try:
            for key in sorted(self._shapes, key=lambda key: key.tokens, reverse=True):
                shape = self._shapes[key]
                if shape.steps >= EAGER_STEPS and shape.replay is None:
                    self._capture(key, shape)
        except Exception as error:
            self._give_up(error)
        # What was only tried leaves nothing behind.
        self._state.trained.zero_gradients()
        devices.set_random_state(device, random)

    def _capture(self, key: BatchShape, shape: _Shape) -> None:
        def step() -> None:
            labels, shares = self._targets(shape.rows)
            shape.loss.copy_(self._backward(shape.rows, key, labels, shares))

        assert self._graphs is not None
        shape.rows.copy_(self._texts.place(shape.example))
        self._graphs.warm_up(step)
        shape.replay = self._graphs.capture(step)

    def _replay(self, shape: _Shape, rows: np.ndarray) -> torch.Tensor:
        assert shape.replay is not None
        shape.rows.copy_(self._texts.place(rows), non_blocking=True)
        shape.replay()
        return shape.loss.clone()

    def _prove(self, shape: _Shape, rows: np.ndarray) -> torch.Tensor:
        """An eager step's gradients and loss, after comparing a replay with them; waits for the device."""
        device, trained = self._state.amp.device, self._state.trained
        before = devices.random_state(device)
        loss = super()._gradients(rows)
        if self._graphs is None:  # memory was needed, or another shape's capture has failed
            return loss
        after, expected = devices.random_state(device), None
        try:
            expected = trained.gradients.clone()
            trained.zero_gradients()
            devices.set_random_state(device, before)
            replayed = self._replay(shape, rows)
            # Gradients that overflow, as fp16's do until their scale is found, prove nothing.
            if bool((loss + expected.sum()).isfinite()):
                shape.proven = True
                by_gradient = _distance(trained.views(trained.gradients), trained.views(expected))
                by_loss = (replayed - loss).abs() / loss.abs().clamp(min=1)
                apart = float(torch.maximum(by_gradient, by_loss))
                if not apart <= TOLERANCES[self._state.amp.dtype]:
                    self._give_up(f"a replay's gradients differ from those of the step itself by {apart:.2g}")
        except Exception as error:
            self._give_up(error)
        if expected is not None:
            trained.gradients.copy_(expected)
        devices.set_random_state(device, after)
        return loss

    def _give_up(self, reason: Exception | str) -> None:
        """Train on with eager steps alone."""
        if self._graphs is not None:
            self._graphs.release()
        self._graphs = None
        self._shapes.clear()
        line = reason if isinstance(reason, str) else first_line(reason)
        self._state.add_note(f"steps were not captured as CUDA graphs, which is slower: {line}")


def _distance(found: list[torch.Tensor], expected: list[torch.Tensor]) -> torch.Tensor:
    """Largest distance of a tensor from the expected one, as a share of that one's norm; NaN if there is one. Shape ().

    A tenth of the largest norm is added to each, as of small gradients rounding is a larger share.
    """
    norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in expected])
    apart = torch.stack(
        [torch.linalg.vector_norm(one - other) for one, other in zip(found, expected, strict=True)]
    )
    return (apart / (norms + 0.1 * norms.max()).clamp(min=torch.finfo(norms.dtype).tiny)).max()
