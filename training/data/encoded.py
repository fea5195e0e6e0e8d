"""Tokenised texts as flat arrays: one split, and a whole data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lorasweep.training.data.device_texts import DeviceTexts, to_device
from lorasweep.training.data.labels import several
from lorasweep.training.data.long_texts import members

if TYPE_CHECKING:
    from lorasweep.training.data.part import Part


@dataclass(frozen=True)
class EncodedTexts:
    """One split as flat arrays, which processes can share without a copy.

    A row is a text, or a pair of texts. The model reads it in one window, or in several where a long text is chunked;
    its logits are then the mean of theirs.

    Attributes:
        input_ids: token ids of all windows end to end; int32, shape (tokens,).
        type_ids: 0 for the first text's tokens and 1 for the second's, where the model reads them;
            uint8, shape (tokens,).
        offsets: window i is input_ids[offsets[i]:offsets[i + 1]]; int64, shape (windows + 1,).
        labels: index into the label names, -1 where unknown; int64, shape (rows,). Of several labels a text: uint8,
            shape (rows, labels), 1 where the text has the label.
        pad_id: token id that pads a batch's short rows.
        truncated: rows longer than the maximum length.
        text_tokens: tokens of the texts themselves, without those that the model adds around them.
        unknown_tokens: those of them that the tokenizer does not know, such as [UNK]; always 0 for tokenizers
            that fall back to bytes.
        unreadable: rows without a single known token, which all look alike to the model.
        documents: row i is windows documents[i] to before documents[i + 1]; int64, shape (rows + 1,). None where each
            row is one window.
    """

    input_ids: np.ndarray
    type_ids: np.ndarray | None
    offsets: np.ndarray
    labels: np.ndarray
    pad_id: int
    truncated: int = 0
    text_tokens: int = 0
    unknown_tokens: int = 0
    unreadable: int = 0
    documents: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, in all its windows; int64, shape (rows,)."""
        return np.diff(self.row_offsets)

    @property
    def row_offsets(self) -> np.ndarray:
        """Row i has the tokens from row_offsets[i] to before row_offsets[i + 1]; int64, shape (rows + 1,)."""
        return self.offsets if self.documents is None else self.offsets[self.documents]

    @property
    def chunks(self) -> int:
        """Windows of the rows that have more than one."""
        counts = np.zeros(0, int) if self.documents is None else np.diff(self.documents)
        return int(counts[counts > 1].sum())

    @property
    def windows(self) -> EncodedTexts:
        """The windows as rows of their own, with their rows' labels; the same texts where each row is one window."""
        if self.documents is None:
            return self
        labels = np.repeat(self.labels, np.diff(self.documents), axis=0)
        return EncodedTexts(self.input_ids, self.type_ids, self.offsets, labels, self.pad_id)

    def window_numbers(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of the windows of some rows, row by row; int64, shape (windows,)."""
        return rows if self.documents is None else members(self.documents, rows)[0]

    def take(self, rows: np.ndarray) -> EncodedTexts:
        """Some rows in the given order, in arrays of their own; what was counted of all rows is not counted again.

        Args:
            rows: row numbers; int64, shape (rows,).
        """
        windows, documents = (rows, None) if self.documents is None else members(self.documents, rows)
        # Where each token of the new windows stands in the old ones.
        places, offsets = members(self.offsets, windows)
        return EncodedTexts(
            input_ids=self.input_ids[places],
            type_ids=None if self.type_ids is None else self.type_ids[places],
            offsets=offsets,
            labels=self.labels[rows],
            pad_id=self.pad_id,
            documents=documents,
        )

    def batch(self, rows: np.ndarray, device: torch.device) -> dict[str, torch.Tensor]:
        """The windows of the given rows as model inputs, padded to the longest, as a tokenizer returns them.

        Their tokens are copied to the device; who makes many batches keeps a `DeviceTexts`.

        Returns:
            `input_ids`, `attention_mask` and, where the model reads them, `token_type_ids`; each int64
            of shape (windows, longest window).
        """
        batch = self._on_cpu.batch(self.window_numbers(rows))
        return {name: to_device(tensor, device) for name, tensor in batch.items()}

    @cached_property
    def _on_cpu(self) -> DeviceTexts:
        return DeviceTexts(self, torch.device("cpu"))

    def __getstate__(self) -> dict[str, Any]:
        """The arrays alone travel to other processes."""
        return {name: value for name, value in vars(self).items() if name != "_on_cpu"}


@dataclass(frozen=True)
class EncodedDataset:
    """The three splits of a data set, ready for training.

    Attributes:
        by_base: where trials choose their base model, the same rows in the tokens of each other base, by its name.
    """

    train: EncodedTexts
    validation: EncodedTexts
    test: EncodedTexts
    label_names: tuple[str, ...]
    by_base: Mapping[str, EncodedDataset] = field(default_factory=dict)

    def for_base(self, name: str | None) -> EncodedDataset:
        """The rows in the tokens of a base model; of the sweep's own for None, its name, or where all read the same."""
        return self.by_base.get(name, self) if name is not None else self

    def token_summary(self) -> dict[str, Any]:
        """Token lengths of the training rows (median, 95th percentile, maximum), and what is lost of all splits.

        That is `truncated` rows, or the `chunks` they are read in; the share of `unknown` tokens, and `unreadable` rows
        without a known token.
        """
        lengths = self.train.lengths
        splits = (self.train, self.validation, self.test)
        return {
            "median": int(np.median(lengths)),
            "p95": int(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
            "truncated": sum(split.truncated for split in splits),
            "unknown": sum(split.unknown_tokens for split in splits)
            / max(sum(split.text_tokens for split in splits), 1),
            "unreadable": sum(split.unreadable for split in splits),
            "chunks": sum(split.chunks for split in splits),
        }

    def take(self, part: Part) -> EncodedDataset:
        """A part of the training and validation rows, with the whole test split."""
        return replace(
            self,
            train=self.train.take(part.train),
            validation=self.validation.take(part.validation),
            by_base={name: data.take(part) for name, data in self.by_base.items()},
        )

    def relabelled(self, labels: dict[str, np.ndarray], label_names: tuple[str, ...]) -> EncodedDataset:
        """The same rows with other labels, sharing their tokens.

        Args:
            labels: split → index into `label_names` of each row; int64, shape (rows,).
        """
        return EncodedDataset(
            replace(self.train, labels=labels["train"]),
            replace(self.validation, labels=labels["validation"]),
            replace(self.test, labels=labels["test"]),
            label_names,
            {name: data.relabelled(labels, label_names) for name, data in self.by_base.items()},
        )

    @property
    def multi_label(self) -> bool:
        """Whether a text has several labels, or none."""
        return several(self.train.labels)

    def class_weights(self) -> np.ndarray:
        """Inverse class frequency in the training rows, with mean 1 over the rows; float32, shape (classes,).

        scikit-learn's "balanced" weights: rows / (classes · rows of the class). Of several labels a text, what a text
        that has the label counts beside one that has not: rows without it / rows with it.
        """
        if self.multi_label:
            positive = np.maximum(self.train.labels.sum(axis=0, dtype=np.int64), 1)
            weights = np.maximum((len(self.train) - positive) / positive, 1 / len(self.train))
            return np.asarray(weights, dtype=np.float32)
        counts = np.bincount(self.train.labels, minlength=len(self.label_names))
        return (len(self.train) / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
