"""Encoded rows to train on: some of a split, and random ones of one shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts

# Of each random row.
TOKENS = 32


def take(texts: EncodedTexts, rows: np.ndarray) -> EncodedTexts:
    """Some rows of a split, in the order given."""
    starts, ends = texts.offsets[rows], texts.offsets[rows + 1]
    tokens = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
    return replace(
        texts,
        input_ids=texts.input_ids[tokens],
        type_ids=texts.type_ids[tokens] if texts.type_ids is not None else None,
        offsets=np.concatenate([[0], np.cumsum(ends - starts)]),
        labels=texts.labels[rows],
    )


def fixed_shape(rows: int, classes: int) -> EncodedDataset:
    """Random token ids, every row as long as the others."""
    random = np.random.default_rng(0)

    def texts(count: int) -> EncodedTexts:
        return EncodedTexts(
            input_ids=random.integers(1000, 20000, count * TOKENS).astype(np.int32),
            type_ids=np.zeros(count * TOKENS, np.uint8),
            offsets=np.arange(count + 1) * TOKENS,
            labels=np.arange(count) % classes,
            pad_id=0,
        )

    return EncodedDataset(texts(rows), texts(32), texts(32), tuple(f"class {n}" for n in range(classes)))
