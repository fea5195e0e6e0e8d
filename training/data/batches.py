"""Which rows make a batch: of similar length, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lorasweep.training.data.labels import several

# Rows are shuffled, cut into pools of this many batches, and sorted by length only within a pool: large enough
# for batches of nearly one length, small enough for a random order.
POOL_BATCHES = 50
# Share by which a row may be taken for longer where classes are balanced: the rows of a small class come many times,
# and with their own lengths alone a batch would hold one of them over and over.
BLUR = 0.25
# Rows and padded tokens of an evaluation batch at most. A GPU computes 4,096 tokens faster than the host can
# launch the kernels for them.
CPU_EVALUATION, GPU_EVALUATION = (128, 4096), (1024, 32768)


def epoch_batches(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int, labels: np.ndarray | None = None
) -> list[np.ndarray]:
    """Rows of each training batch of an epoch, in order: random, but of similar length within a batch.

    Depends on its arguments alone, so a resumed trial finds its place by epoch and batch number. Batches are
    padded to their own longest row, so little is wasted: headlines with descriptions train at 1.5 to 1.9
    times the rows per second of random batches.

    Args:
        labels: of the rows, to draw each class equally often; as of `balanced_rows`. Each row is drawn once if None.

    Returns:
        ceil(rows / batch_size) arrays of row numbers; a shorter one may come anywhere.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths)) if labels is None else balanced_rows(labels, random)
    pool = batch_size * POOL_BATCHES
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        keys = lengths[rows]
        if labels is not None:
            keys = keys * random.uniform(1, 1 + BLUR, len(rows))
        rows = rows[np.argsort(keys, kind="stable")]
        batches.extend(rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
    return [batches[i] for i in random.permutation(len(batches))]


def balanced_rows(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """As many rows as there are, in random order, equally many of each class.

    What cannot be shared equally goes to random classes. Within a class no row comes a second time before each came
    once. A class without a row has no share. Of several labels a text each label is a class, and so are the texts
    without any; a text comes for each of its labels.

    Args:
        labels: int64, shape (rows,); or uint8, shape (rows, labels).

    Returns:
        Row numbers; int64, shape (rows,).
    """
    if several(labels):
        kinds = [*labels.T.astype(bool), ~labels.any(axis=1)]
        classes = [np.flatnonzero(kind) for kind in kinds if kind.any()]
    else:
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[random.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    drawn = []
    for rows, share in zip(classes, shares.tolist(), strict=True):
        times, rest = divmod(share, len(rows))
        drawn += [np.tile(rows, times), random.permutation(rows)[:rest]]
    return random.permutation(np.concatenate(drawn))


def evaluation_batches(
    lengths: np.ndarray, max_rows: int = 128, max_tokens: int = 4096
) -> Iterator[np.ndarray]:
    """Rows of each evaluation batch: sorted by length, limited in rows and in padded tokens."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        candidates = order[start : start + max_rows]
        tokens = lengths[candidates] * np.arange(1, len(candidates) + 1)
        rows = max(1, int(np.searchsorted(tokens, max_tokens, side="right")))
        yield candidates[:rows]
        start += rows


def evaluation_size(device: torch.device) -> tuple[int, int]:
    """Rows and padded tokens of an evaluation batch at most."""
    return CPU_EVALUATION if device.type == "cpu" else GPU_EVALUATION
