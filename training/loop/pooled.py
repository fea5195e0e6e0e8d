"""Optimiser steps on long texts in chunks, whose logits are averaged text by text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.data.long_texts import pooled
from lorasweep.training.loop.eager import EagerSteps
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.settings import Hyperparameters, TrainingSettings


class PooledSteps(EagerSteps):
    """Steps whose batches and losses count texts, and whose micro-batches count chunks.

    By default the device holds as many chunks at once as a batch has texts, so long texts take no more memory than
    short ones. A text of more chunks than a micro-batch is computed in parts, each a second time for its gradient.
    """

    UNIT = "chunk"

    def __init__(
        self,
        state: TrainingState,
        texts: DeviceTexts,
        hyperparameters: Hyperparameters,
        training_settings: TrainingSettings,
        weights: torch.Tensor | None = None,
    ) -> None:
        """Train a state on texts that have `documents`; arguments as of `EagerSteps`."""
        super().__init__(state, texts, hyperparameters, training_settings, weights)
        assert texts.documents is not None
        self._counts = np.diff(texts.documents)
        self._batch_size = hyperparameters.batch_size

    def _at_once(self, rows: np.ndarray) -> int:
        most = self._state.micro_batch_size or self._micro_batch_size or self._batch_size
        return min(most, int(self._counts[rows].sum()))

    def _accumulate(self, rows: np.ndarray, micro: int) -> torch.Tensor:
        labels, shares = self._targets(self._texts.place(rows))
        loss = torch.zeros((), device=labels.device)
        for part in _parts(self._counts[rows], micro):
            with self._state.amp.autocast():
                logits = self._logits(rows[part], micro)
            loss += self._backward_from(logits, labels[part], shares[part])
        return loss

    def _logits(self, rows: np.ndarray, micro: int) -> torch.Tensor:
        """The mean logits of some texts; float32, shape (texts, classes)."""
        windows, counts = self._texts.windows(rows), self._counts[rows].tolist()
        if len(windows) <= micro:
            return pooled(self._forward(self._texts.batch(windows)), counts)
        parts = [
            checkpoint(self._forward, self._texts.batch(windows[start : start + micro]), use_reentrant=False)
            for start in range(0, len(windows), micro)
        ]
        return pooled(torch.cat(parts), counts)

    def _forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self._state.model(**inputs).logits
        return logits.float()


def _parts(counts: np.ndarray, most: int) -> Iterator[slice]:
    """Texts one after the other that have at most so many chunks together, or one text that has more."""
    start = chunks = 0
    for end, count in enumerate(counts.tolist()):
        if chunks and chunks + count > most:
            yield slice(start, end)
            start, chunks = end, 0
        chunks += count
    yield slice(start, len(counts))
