"""Which rows make a batch, and batches gathered on the device from a split's tokens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from lorasweep.training.data.encoding import EncodedTexts

# Rows are shuffled, cut into pools of this many batches, and sorted by length only within a pool: large enough
# for batches of nearly one length, small enough for a random order.
POOL_BATCHES = 50
# On a GPU, lengths are multiples of this: shapes repeat, and its attention needs masks aligned so.
LENGTH_STEP = 8
# Rows and padded tokens of an evaluation batch at most. A GPU computes 4,096 tokens faster than the host can
# launch the kernels for them.
CPU_EVALUATION, GPU_EVALUATION = (128, 4096), (1024, 32768)


class BatchShape(NamedTuple):
    """What the host knows of a batch: rows, their padded length in tokens, and whether none is shorter."""

    rows: int
    length: int
    full: bool

    @property
    def tokens(self) -> int:
        """Tokens with padding."""
        return self.rows * self.length


def padded_length(longest: int, most: int, device: torch.device) -> int:
    """Tokens to which a batch is padded.

    Args:
        longest: tokens of its longest row.
        most: tokens that the model can read, or of the longest row of all.
    """
    if device.type != "cuda":
        return longest
    return max(longest, min(-(-longest // LENGTH_STEP) * LENGTH_STEP, most))


def unpadded(true: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    """The mask of a batch without padding: one element, repeated with strides of 0; bool, shape (rows, length).

    Args:
        true: the element; bool, shape (), on the device of the batch.
    """
    return true.expand(rows, length)


def is_unpadded(mask: torch.Tensor) -> bool:
    """Whether a mask was made by `unpadded`, as seen without the device."""
    return mask.dtype == torch.bool and not any(mask.stride())


class DeviceTexts:
    """One split on a device, where batches are gathered by row numbers without waiting for it.

    On a CPU the arrays are shared, not copied.

    Attributes:
        device: where the tensors are.
        labels: label of each row, -1 where unknown; int64, shape (rows,), on the device.
        most: tokens of the longest row, or those that the model can read.
    """

    def __init__(
        self, texts: EncodedTexts, device: torch.device, most: int | None = None, bool_masks: bool = False
    ) -> None:
        """Bring a split to a device; `device_texts` does so in the form that a model reads.

        Args:
            most: tokens that the model can read; None for those of the longest row.
            bool_masks: that masks are bool, and made by `unpadded` where nothing is padded; otherwise int64, as a
                tokenizer makes them.
        """
        self.device = device
        self.most = int(texts.lengths.max(initial=1)) if most is None else most
        self.labels = self._place(texts.labels)
        self._input_ids = self._place(texts.input_ids)
        self._type_ids = None if texts.type_ids is None else self._place(texts.type_ids)
        self._host_offsets = texts.offsets
        offsets = self._place(texts.offsets)
        self._starts, self._ends = offsets[:-1], offsets[1:]
        self._pad_id = texts.pad_id
        self._true = torch.ones((), dtype=torch.bool, device=device) if bool_masks else None
        self._places = torch.arange(self.most, device=device)

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row; int64, shape (rows,), on the host."""
        return np.diff(self._host_offsets)

    def shape(self, rows: np.ndarray, length: int | None = None) -> BatchShape:
        """The shape of the batch of these rows, known without the device."""
        lengths = self._host_offsets[rows + 1] - self._host_offsets[rows]
        if length is None:
            length = padded_length(int(lengths.max()), self.most, self.device)
        return BatchShape(len(lengths), length, bool(lengths.min() >= length))

    def place(self, rows: np.ndarray) -> torch.Tensor:
        """Row numbers on the device; int64. On a GPU the copy runs beside its work."""
        return to_device(torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)), self.device)

    def batch(
        self, rows: np.ndarray | torch.Tensor, length: int | None = None, full: bool = False
    ) -> dict[str, torch.Tensor]:
        """The given rows as model inputs on the device, without waiting for it.

        Args:
            rows: row numbers, int64; as a tensor on the device they need a `length`.
            length: tokens to which the rows are padded, and beyond which they are cut off; that of `shape` if None.
            full: that no row of a tensor is shorter than `length`; with an array this is seen.

        Returns:
            `input_ids`, `attention_mask` and, where the model reads them, `token_type_ids`; of shape (rows, length).
        """
        if isinstance(rows, np.ndarray):
            _, length, full = self.shape(rows, length)
            rows = self.place(rows)
        elif length is None:
            raise ValueError("rows on the device need a length: their own would have to be waited for")
        positions, mask = self._positions(rows, length, full)
        inputs = {
            "input_ids": self._gather(self._input_ids, positions, mask, self._pad_id),
            "attention_mask": self._mask(mask, len(rows), length),
        }
        if self._type_ids is not None:
            inputs["token_type_ids"] = self._gather(self._type_ids, positions, mask, 0)
        return inputs

    def buffers(self, rows: int, length: int, full: bool = False) -> dict[str, torch.Tensor]:
        """Tensors that `batch_into` fills, of the types and shapes that `batch` returns."""
        shape, device = (rows, length), self.device
        mask = None if full else torch.ones(shape, dtype=torch.bool, device=device)
        buffers = {
            "input_ids": torch.full(shape, self._pad_id, device=device),
            "attention_mask": self._mask(mask, rows, length),
        }
        if self._type_ids is not None:
            buffers["token_type_ids"] = torch.zeros(shape, dtype=torch.int64, device=device)
        return buffers

    def batch_into(self, buffers: dict[str, torch.Tensor], rows: torch.Tensor, full: bool = False) -> None:
        """Gather rows into the tensors of `buffers`, for a step that is captured with them.

        Args:
            rows: row numbers on the device; int64, shape (rows,). Any row will do for one that does not count.
            full: as `buffers` were made.
        """
        positions, mask = self._positions(rows, buffers["input_ids"].shape[1], full)
        buffers["input_ids"].copy_(self._gather(self._input_ids, positions, mask, self._pad_id))
        if mask is not None:
            buffers["attention_mask"].copy_(mask)
        if self._type_ids is not None:
            buffers["token_type_ids"].copy_(self._gather(self._type_ids, positions, mask, 0))

    def _positions(
        self, rows: torch.Tensor, length: int, full: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Places in the flat arrays, and whether they belong to the row; shape (rows, length)."""
        places = self._places[:length]
        if len(places) < length:
            places = torch.arange(length, device=self.device)
        positions = self._starts.index_select(0, rows)[:, None] + places
        mask = None if full else positions < self._ends.index_select(0, rows)[:, None]
        # The last row's padding would lie behind the end.
        return positions.clamp_(max=len(self._input_ids) - 1), mask

    def _mask(self, mask: torch.Tensor | None, rows: int, length: int) -> torch.Tensor:
        if self._true is None:
            return (
                torch.ones((rows, length), dtype=torch.int64, device=self.device)
                if mask is None
                else mask.long()
            )
        return unpadded(self._true, rows, length) if mask is None else mask

    @staticmethod
    def _gather(
        values: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, padding: int
    ) -> torch.Tensor:
        gathered = values[positions].long()
        return gathered if mask is None else torch.where(mask, gathered, padding)

    def _place(self, array: np.ndarray) -> torch.Tensor:
        with warnings.catch_warnings():
            # Ray's arrays are read-only, of which torch warns. Nothing here writes into them.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array).to(self.device)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor of the host on a device."""
    # From pinned memory the copy runs beside the GPU's work instead of waiting for it.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows of each training batch of an epoch, in order: random, but of similar length within a batch.

    Depends on its arguments alone, so a resumed trial finds its place by epoch and batch number. Batches are
    padded to their own longest row, so little is wasted: headlines with descriptions train at 1.5 to 1.9
    times the rows per second of random batches.

    Returns:
        ceil(rows / batch_size) arrays of row numbers; a shorter one may come anywhere.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    pool = batch_size * POOL_BATCHES
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches.extend(rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
    return [batches[i] for i in random.permutation(len(batches))]


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
