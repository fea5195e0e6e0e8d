"""Texts tokenised once per sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lorasweep.training.data.device_texts import DeviceTexts, to_device
from lorasweep.training.data.labels import several

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lorasweep.training.data.dataset import Dataset, Texts
    from lorasweep.training.data.part import Part


@dataclass(frozen=True)
class EncodedTexts:
    """One split as flat arrays, which processes can share without a copy.

    Attributes:
        input_ids: token ids of all rows end to end; int32, shape (tokens,).
        type_ids: 0 for the first text's tokens and 1 for the second's, where the model reads them;
            uint8, shape (tokens,).
        offsets: row i is input_ids[offsets[i]:offsets[i + 1]]; int64, shape (rows + 1,).
        labels: index into the label names, -1 where unknown; int64, shape (rows,). Of several labels a text: uint8,
            shape (rows, labels), 1 where the text has the label.
        pad_id: token id that pads a batch's short rows.
        truncated: rows cut off at the maximum length.
        text_tokens: tokens of the texts themselves, without those that the model adds around them.
        unknown_tokens: those of them that the tokenizer does not know, such as [UNK]; always 0 for tokenizers
            that fall back to bytes.
        unreadable: rows without a single known token, which all look alike to the model.
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

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row; int64, shape (rows,)."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> EncodedTexts:
        """Some rows in the given order, in arrays of their own; what was counted of all rows is not counted again.

        Args:
            rows: row numbers; int64, shape (rows,).
        """
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # Where each token of the new rows stands in the old ones.
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return EncodedTexts(
            input_ids=self.input_ids[places],
            type_ids=None if self.type_ids is None else self.type_ids[places],
            offsets=offsets,
            labels=self.labels[rows],
            pad_id=self.pad_id,
        )

    def batch(self, rows: np.ndarray, device: torch.device) -> dict[str, torch.Tensor]:
        """The given rows as model inputs, padded to the longest of them, as a tokenizer returns them.

        Their tokens are copied to the device; who makes many batches keeps a `DeviceTexts`.

        Returns:
            `input_ids`, `attention_mask` and, where the model reads them, `token_type_ids`; each int64
            of shape (len(rows), longest row).
        """
        batch = self._on_cpu.batch(rows)
        return {name: to_device(tensor, device) for name, tensor in batch.items()}

    @cached_property
    def _on_cpu(self) -> DeviceTexts:
        return DeviceTexts(self, torch.device("cpu"))

    def __getstate__(self) -> dict[str, Any]:
        """The arrays alone travel to other processes."""
        return {name: value for name, value in vars(self).items() if name != "_on_cpu"}


@dataclass(frozen=True)
class EncodedDataset:
    """The three splits of a data set, ready for training."""

    train: EncodedTexts
    validation: EncodedTexts
    test: EncodedTexts
    label_names: tuple[str, ...]

    def token_summary(self) -> dict[str, Any]:
        """Token lengths of the training rows (median, 95th percentile, maximum), and what is lost of all splits.

        That is `truncated` rows, the share of `unknown` tokens, and `unreadable` rows without a known token.
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
        }

    def take(self, part: Part) -> EncodedDataset:
        """A part of the training and validation rows, with the whole test split."""
        return replace(
            self, train=self.train.take(part.train), validation=self.validation.take(part.validation)
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


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    text: Sequence[str],
    pair: Sequence[str] | None,
    labels: np.ndarray | None,
    max_length: int,
) -> EncodedTexts:
    """Tokenise rows, truncated to `max_length` tokens (special tokens included).

    An empty second text becomes an empty second segment, as in transformers. Where a tokenizer adds no tokens of its
    own, as some decoders' do, a text without any is read as one padding token.
    """
    options = {"truncation": True, "max_length": max_length, "padding": False, "return_attention_mask": False}
    # A tokenizer refuses an empty list.
    encoded = tokenizer(list(text), list(pair) if pair is not None else None, **options) if len(text) else {}
    pad_id = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    rows: list[list[int]] = [row or [pad_id] for row in encoded.get("input_ids", [])]
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    types = encoded.get("token_type_ids")
    return EncodedTexts(
        input_ids=np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
        if rows
        else np.zeros(0, np.int32),
        type_ids=np.concatenate([np.asarray(row or [0], dtype=np.uint8) for row in types]) if types else None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=np.full(len(rows), -1)
        if labels is None
        else labels
        if several(labels)
        else labels.astype(np.int64),
        pad_id=pad_id,
        # A row of exactly the maximum length counts too: telling them apart would take a second pass.
        truncated=int((lengths >= max_length).sum()),
    )


def count_unknown(tokenizer: PreTrainedTokenizerBase, encoded: EncodedTexts) -> EncodedTexts:
    """The same texts with the counts of their own tokens, of the unknown ones, and of rows without a known one.

    Apart from `encode_texts`, as only who chooses a base model asks for them, and predictions do not.
    """
    input_ids, offsets = encoded.input_ids, encoded.offsets
    roles = dict(tokenizer.special_tokens_map)
    unk = roles.pop("unk_token", None)
    others = [roles.pop("additional_special_tokens", []), list(roles.values())]
    added = [tokenizer.convert_tokens_to_ids(token) for tokens in others for token in tokens]
    own = ~np.isin(input_ids, list(added))
    # Where the same token also ends a text, as in GPT-2, nothing is ever unknown.
    unknown = own & (input_ids == (tokenizer.convert_tokens_to_ids(unk) if unk else -1))
    known_before = np.concatenate([[0], np.cumsum(own & ~unknown)])
    return replace(
        encoded,
        text_tokens=int(own.sum()),
        unknown_tokens=int(unknown.sum()),
        unreadable=int((known_before[offsets[1:]] == known_before[offsets[:-1]]).sum()),
    )


def encode_dataset(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedDataset:
    """Tokenise the three splits of a data set."""

    def encode(texts: Texts) -> EncodedTexts:
        encoded = encode_texts(tokenizer, texts.text, texts.pair, texts.labels, max_length)
        return count_unknown(tokenizer, encoded)

    return EncodedDataset(
        encode(dataset.train), encode(dataset.validation), encode(dataset.test), dataset.label_names
    )
