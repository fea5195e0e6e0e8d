"""Texts tokenised once per sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.data.labels import several
from lorasweep.training.data.long_texts import read_windows
from lorasweep.training.settings import Long

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lorasweep.training.data.dataset import Dataset, Texts


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    text: Sequence[str],
    pair: Sequence[str] | None,
    labels: np.ndarray | None,
    max_length: int,
    long: Long = "cut",
) -> EncodedTexts:
    """Tokenise rows, in windows of at most `max_length` tokens (special tokens included).

    Args:
        long: what becomes of longer rows: they are cut off, lose their middle, or become several windows.

    An empty second text becomes an empty second segment, as in transformers. Where a tokenizer adds no tokens of its
    own, as some decoders' do, a text without any is read as one padding token.
    """
    options = {"truncation": True, "max_length": max_length, "padding": False, "return_attention_mask": False}
    # A tokenizer refuses an empty list.
    encoded = tokenizer(list(text), list(pair) if pair is not None else None, **options) if len(text) else {}
    pad_id = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    rows: list[Any] = [row or [pad_id] for row in encoded.get("input_ids", [])]
    types: list[Any] = [row or [0] for row in encoded.get("token_type_ids", [])]
    # A row of exactly the maximum length is among them: telling them apart takes a second pass.
    longer = [number for number, row in enumerate(rows) if len(row) >= max_length]
    truncated, documents = len(longer), None
    if long != "cut" and longer:
        seconds = None if pair is None else [pair[number] for number in longer]
        whole = read_windows(tokenizer, [text[number] for number in longer], seconds, max_length, long)
        truncated = sum(long_row.truncated for long_row in whole)
        counts = np.ones(len(rows), dtype=np.int64)
        counts[longer] = [len(long_row.windows) for long_row in whole]
        windows, window_types = [[row] for row in rows], [[row] for row in types]
        for number, long_row in zip(longer, whole, strict=True):
            windows[number] = [window["input_ids"] for window in long_row.windows]
            if types:
                window_types[number] = [window["token_type_ids"] for window in long_row.windows]
        rows, types = list(chain(*windows)), list(chain(*window_types))
        documents = np.concatenate([[0], np.cumsum(counts)]) if counts.max() > 1 else None
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    return EncodedTexts(
        input_ids=_flat(rows, np.int32),
        type_ids=_flat(types, np.uint8) if types else None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=np.full(len(text), -1)
        if labels is None
        else labels
        if several(labels)
        else labels.astype(np.int64),
        pad_id=pad_id,
        truncated=truncated,
        documents=documents,
    )


def _flat(rows: list[Any], dtype: Any) -> np.ndarray:
    return np.concatenate([np.asarray(row, dtype=dtype) for row in rows]) if rows else np.zeros(0, dtype)


def count_unknown(tokenizer: PreTrainedTokenizerBase, encoded: EncodedTexts) -> EncodedTexts:
    """The same texts with the counts of their own tokens, of the unknown ones, and of rows without a known one.

    Apart from `encode_texts`, as only who chooses a base model asks for them, and predictions do not.
    """
    input_ids = encoded.input_ids
    roles = dict(tokenizer.special_tokens_map)
    unk = roles.pop("unk_token", None)
    others = [roles.pop("additional_special_tokens", []), list(roles.values())]
    added = [tokenizer.convert_tokens_to_ids(token) for tokens in others for token in tokens]
    own = ~np.isin(input_ids, list(added))
    # Where the same token also ends a text, as in GPT-2, nothing is ever unknown.
    unknown = own & (input_ids == (tokenizer.convert_tokens_to_ids(unk) if unk else -1))
    known_before = np.concatenate([[0], np.cumsum(own & ~unknown)])
    offsets = encoded.row_offsets
    return replace(
        encoded,
        text_tokens=int(own.sum()),
        unknown_tokens=int(unknown.sum()),
        unreadable=int((known_before[offsets[1:]] == known_before[offsets[:-1]]).sum()),
    )


def encode_dataset(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, long: Long = "cut"
) -> EncodedDataset:
    """Tokenise the three splits of a data set."""

    def encode(texts: Texts) -> EncodedTexts:
        encoded = encode_texts(tokenizer, texts.text, texts.pair, texts.labels, max_length, long)
        return count_unknown(tokenizer, encoded)

    return EncodedDataset(
        encode(dataset.train), encode(dataset.validation), encode(dataset.test), dataset.label_names
    )


def encode_for_bases(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    others: Mapping[str, Any],
    long: Long = "cut",
) -> EncodedDataset:
    """Tokenise a data set for a base model and for others that trials may choose.

    Bases whose tokenizers read these rows alike share their arrays.

    Args:
        tokenizer: of the sweep's own base model.
        others: name → tokenizer of each other base model.
    """
    own = encode_dataset(dataset, tokenizer, max_length, long)
    different: dict[str, EncodedDataset] = {}
    for name, other in others.items():
        encoded = encode_dataset(dataset, other, max_length, long)
        if not _same_tokens(encoded, own):
            known = (each for each in different.values() if _same_tokens(encoded, each))
            different[name] = next(known, encoded)
    return replace(own, by_base=different)


def _same_tokens(one: EncodedDataset, other: EncodedDataset) -> bool:
    def same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
        if first is None or second is None:
            return first is second
        return np.array_equal(first, second)

    return all(
        a.pad_id == b.pad_id
        and all(
            same(getattr(a, name), getattr(b, name))
            for name in ("input_ids", "type_ids", "offsets", "documents")
        )
        for a, b in zip(
            (one.train, one.validation, one.test), (other.train, other.validation, other.test), strict=True
        )
    )
