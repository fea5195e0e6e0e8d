"""Batches gathered on the device from a split's tokens, by row numbers."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from lorasweep.training.data.long_texts import members

# On a GPU, lengths are multiples of this: shapes repeat, and its attention needs masks aligned so.
LENGTH_STEP = 8
# Added to row numbers: places among the offsets of a row's first token, and of the one behind its last.
ROW_BOUNDS = np.array([[0], [1]])


class BatchShape(NamedTuple):
    """What the host knows of a batch: rows, their padded length in tokens, and whether none is shorter."""

    rows: int
    length: int
    full: bool

    @property
    def tokens(self) -> int:
        """Tokens with padding."""
        return self.rows * self.length


def library(device: torch.device) -> Any:
    """What gathers batches: numpy takes half of torch's time on a CPU. The functions used have the same names."""
    return np if device.type == "cpu" else torch


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


class TokenArrays(Protocol):
    """A split's tokens as flat arrays, as `EncodedTexts` has them."""

    @property
    def input_ids(self) -> np.ndarray: ...
    @property
    def type_ids(self) -> np.ndarray | None: ...
    @property
    def offsets(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def documents(self) -> np.ndarray | None: ...


class DeviceTexts:
    """One split on a device, where batches are gathered by row numbers without waiting for it.

    Where long texts are chunked, the rows gathered are windows, and `windows` finds those of a text. On a CPU the
    arrays are shared, not copied.

    Attributes:
        device: where the tensors are.
        labels: label of each text, -1 where unknown; int64, shape (texts,), on the device.
        most: tokens of the longest row, or those that the model can read.
        documents: text i is windows documents[i] to before documents[i + 1]; int64, shape (texts + 1,), on the host.
            None where each text is one window.
    """

    def __init__(
        self, texts: TokenArrays, device: torch.device, most: int | None = None, bool_masks: bool = False
    ) -> None:
        """Bring a split to a device; `device_texts` does so in the form that a model reads.

        Args:
            most: tokens that the model can read; None for those of the longest row.
            bool_masks: that masks are bool, and made by `unpadded` where nothing is padded; otherwise int64, as a
                tokenizer makes them.
        """
        self.device = device
        self.documents = texts.documents
        longest = int(np.diff(texts.offsets).max(initial=0))
        self.most = longest if most is None else most
        self.labels = self._place(texts.labels)
        self._library = library(device)
        place = (lambda array: array) if self._library is np else self._place
        self._input_ids = place(texts.input_ids)
        self._typed = texts.type_ids is not None
        # Without second texts all types are 0, and there is nothing to gather.
        self._type_ids = None
        if texts.type_ids is not None and texts.type_ids.any():
            self._type_ids = place(texts.type_ids)
        self._host_offsets = texts.offsets
        self._offsets = place(texts.offsets)
        self._pad_id = texts.pad_id
        self._true = torch.ones((), dtype=torch.bool, device=device) if bool_masks else None
        self._last = place(np.array(len(texts.input_ids) - 1))
        self._places = place(np.arange(min(self.most, longest + LENGTH_STEP)))

    def __len__(self) -> int:
        return len(self._host_offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row; int64, shape (rows,), on the host."""
        return np.diff(self._host_offsets)

    def windows(self, texts: np.ndarray) -> np.ndarray:
        """Row numbers of the windows of these texts, text by text; int64, on the host."""
        return texts if self.documents is None else members(self.documents, texts)[0]

    def shape(self, rows: np.ndarray, length: int | None = None) -> BatchShape:
        """The shape of the batch of these rows, known without the device."""
        return self._shape(self._host_offsets[rows + ROW_BOUNDS], length)

    def _shape(self, bounds: np.ndarray, length: int | None) -> BatchShape:
        lengths = bounds[1] - bounds[0]
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
            found = self._host_offsets[rows + ROW_BOUNDS]
            _, length, full = self._shape(found, length)
            bounds = found if self._library is np else self.place(found)
        elif length is None:
            raise ValueError("rows on the device need a length: their own would have to be waited for")
        else:
            bounds = self._bounds(rows)
        inputs = self._gather(bounds, length, full)
        if self._typed and self._type_ids is None:
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        return inputs

    def _bounds(self, rows: torch.Tensor) -> Any:
        """First token of each row and the one behind its last; shape (2, rows)."""
        numbers = rows.numpy() if self._library is np else rows
        return self._library.stack([self._offsets[numbers], self._offsets[numbers + 1]])

    def _gather(self, bounds: Any, length: int, full: bool) -> dict[str, torch.Tensor]:
        library = self._library
        places = self._places[:length]
        if len(places) < length:
            places = library.arange(length, device=str(self.device))
        positions = bounds[0][:, None] + places
        padding = None if full else positions >= bounds[1][:, None]
        # The last row's padding would lie behind the end.
        positions = library.minimum(positions, self._last)

        def values(array: Any, pad: int) -> torch.Tensor:
            taken = array[positions]
            return self._whole(taken if padding is None else library.where(padding, pad, taken))

        inputs = {"input_ids": values(self._input_ids, self._pad_id)}
        inputs["attention_mask"] = self._mask(padding, inputs["input_ids"].shape)
        if self._type_ids is not None:
            inputs["token_type_ids"] = values(self._type_ids, 0)
        return inputs

    def _mask(self, padding: Any, shape: torch.Size) -> torch.Tensor:
        if padding is not None:
            return torch.as_tensor(~padding) if self._true is not None else self._whole(~padding)
        if self._true is None:
            return torch.ones(shape, dtype=torch.int64, device=self.device)
        return unpadded(self._true, shape[0], shape[1])

    def _whole(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.int64)) if self._library is np else array.long()

    def _place(self, array: np.ndarray) -> torch.Tensor:
        if array.flags.writeable:
            return torch.from_numpy(array).to(self.device)
        with warnings.catch_warnings():
            # Ray's arrays are read-only, of which torch warns. Nothing here writes into them.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array).to(self.device)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor of the host on a device."""
    # From pinned memory the copy runs beside the GPU's work instead of waiting for it.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
