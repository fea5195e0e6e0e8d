"""How long a classifier takes for its predictions."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.model.precision import AmpPolicy

WARM_UP = 5
# Chunks of long texts that are predicted at once, or as many as there are texts.
WINDOWS = 32


@torch.inference_mode()
def prediction_times(
    model: nn.Module, texts: EncodedTexts, amp: AmpPolicy, batch: int, repeats: int = 50
) -> np.ndarray:
    """Time predictions of random rows, each batch padded to its own longest text, as a server would.

    From token ids in memory to logits in memory: tokenisation is the same for all models with one tokenizer. Texts in
    chunks are predicted whole, a few chunks at once.

    Args:
        batch: texts at once; fewer where there are not so many.

    Returns:
        Milliseconds of each repeat, after some that do not count; float64, shape (repeats,).
    """
    windows, at_once = texts.windows, max(batch, WINDOWS)
    model.eval()
    random = np.random.default_rng(0)
    times: list[float] = []
    for _ in range(WARM_UP + repeats):
        rows = random.choice(len(texts), size=min(batch, len(texts)), replace=False)
        started = time.perf_counter()
        with amp.autocast():
            for start in range(0, len(numbers := texts.window_numbers(rows)), at_once):
                logits = model(**windows.batch(numbers[start : start + at_once], amp.device)).logits
        logits.float().cpu()  # waits for the device
        times.append(1000 * (time.perf_counter() - started))
    return np.array(times[WARM_UP:])
