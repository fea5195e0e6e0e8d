"""Texts longer than a model reads at once: their first and last tokens, or all of them in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lorasweep.training.errors import SettingsError, counted
from lorasweep.training.settings import Long

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens of its own that a chunk needs.
LEAST_ROOM = 2


@dataclass(frozen=True)
class LongRow:
    """How a row is read that may be too long for the model.

    Attributes:
        windows: each with `input_ids` and, where the tokenizer gives them, `token_type_ids`.
        truncated: whether the row is longer than the model reads at once.
    """

    windows: list[dict[str, np.ndarray]]
    truncated: bool


# Model cards show this function to people who have no lorasweep, and tuning/tracking/models/serving.py repeats it.
def window_places(added: list[int], first: int, limit: int, long: str) -> list[np.ndarray]:
    """Places of a row's tokens that are read together: once, or in chunks of nearly equal length.

    added: 1 for the tokens around the texts, which every chunk keeps; first: tokens of the first text.
    Of a pair the longer text is shortened; the other one, up to half the room, is kept in every chunk.
    """
    places = np.flatnonzero(np.equal(added, 0))
    around = np.flatnonzero(added)
    room = limit - len(around)
    if len(places) <= room:
        return [np.arange(len(added))]
    shorter, longer = sorted((places[:first], places[first:]), key=len)
    shorter = shorter[: room // 2]
    room -= len(shorter)
    if long == "head-tail":
        head = (room + 2) // 4
        parts = [np.concatenate([longer[:head], longer[head - room :]])]
    else:
        parts = np.array_split(longer, -(-len(longer) // room))
    return [np.sort(np.concatenate([around, shorter, part])) for part in parts]


def read_windows(
    tokenizer: PreTrainedTokenizerBase,
    text: Sequence[str],
    pair: Sequence[str] | None,
    max_length: int,
    long: Long,
) -> list[LongRow]:
    """The windows of each row: one of at most `max_length` tokens, or with `chunks` as many as hold all of it.

    Raises:
        SettingsError: special tokens leave no room for a text's own.
    """
    options: dict[str, Any] = {"return_attention_mask": False, "verbose": False}
    whole = tokenizer(
        list(text), None if pair is None else list(pair), return_special_tokens_mask=True, **options
    )
    added = whole.pop("special_tokens_mask")
    if pair is None:
        firsts = list(map(len, added))
    else:
        alone = tokenizer(list(text), add_special_tokens=False, **options)
        firsts = list(map(len, alone["input_ids"]))
    rows: list[LongRow] = []
    for number, (around, first) in enumerate(zip(added, firsts, strict=True)):
        if max_length - sum(around) < LEAST_ROOM:
            raise SettingsError(
                f"--max-length {max_length}: with --long {long} a text needs {LEAST_ROOM} tokens beside "
                f"{counted(sum(around), 'token')} that the tokenizer adds; use {sum(around) + LEAST_ROOM} or more"
            )
        values = {name: np.asarray(whole[name][number]) for name in whole}
        places = window_places(around, first, max_length, long)
        windows = [{name: array[kept] for name, array in values.items()} for kept in places]
        rows.append(LongRow(windows, len(around) > max_length))
    return rows


def members(bounds: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the elements of some rows, end to end, and where each of these rows then begins.

    Args:
        bounds: row i has the elements from bounds[i] to before bounds[i + 1]; int64, shape (all rows + 1,).
        rows: row numbers; int64, shape (rows,).

    Returns:
        int64, shape (elements,) and (rows + 1,).
    """
    counts = bounds[rows + 1] - bounds[rows]
    begins = np.concatenate([[0], np.cumsum(counts)])
    return np.arange(begins[-1]) + np.repeat(bounds[rows] - begins[:-1], counts), begins


def mean_by_row(logits: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The mean of the logits of each row's windows; float32, shape (rows, classes).

    Args:
        logits: of all windows, in order; float32, shape (windows, classes).
        bounds: row i has the windows from bounds[i] to before bounds[i + 1]; int64, shape (rows + 1,).
    """
    sums = np.add.reduceat(logits, bounds[:-1], axis=0) if len(logits) else logits
    return np.asarray(sums / np.diff(bounds)[:, None], dtype=np.float32)


def pooled(logits: torch.Tensor, counts: Iterable[int]) -> torch.Tensor:
    """As `mean_by_row`, with gradients, for rows of so many windows each."""
    parts = logits.split(list(counts))  # type: ignore[no-untyped-call]
    return torch.stack([part.mean(dim=0) for part in parts])
