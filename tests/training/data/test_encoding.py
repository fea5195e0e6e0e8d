"""Flat arrays against the tokenizer's own padded output."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from tiny_bases import WORDS, tiny_tokenizer
from tiny_trials import CPU, dataset

from lorasweep.training.data.dataset import Dataset, Texts
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.data.encoding import count_unknown, encode_dataset, encode_texts
from lorasweep.training.data.part import Part
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model

HEADLINES = [
    "markets rally as inflation cools",
    "senate votes",
    "",
    "film star wins award , team wins game : doctors study vaccine trial in the city",
    "an unknown word",
]
MORE = ["shares rise", "", "budget", "album launch season", "bank"]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {"typed": tiny_tokenizer(typed=True), "plain": tiny_tokenizer(typed=False)}


@pytest.mark.parametrize("kind", ["typed", "plain"])
@pytest.mark.parametrize("pair", [None, MORE])
def test_batches_equal_the_tokenizers_own_padding(
    tokenizers: dict[str, Any], kind: str, pair: list[str] | None
) -> None:
    tokenizer = tokenizers[kind]
    encoded = encode_texts(tokenizer, HEADLINES, pair, np.arange(5), max_length=9)
    assert (encoded.input_ids.dtype, encoded.offsets.dtype) == (np.int32, np.int64)
    assert encoded.labels.tolist() == [0, 1, 2, 3, 4]
    for rows in ([0, 1, 2, 3, 4], [4, 1], [2], [3, 3, 0]):
        own = tokenizer(
            [HEADLINES[row] for row in rows],
            [pair[row] for row in rows] if pair else None,
            truncation=True,
            max_length=9,
            padding="longest",
            return_tensors="pt",
        )
        batch = encoded.batch(np.array(rows), CPU)
        assert batch.keys() == own.keys()
        assert ("token_type_ids" in batch) == (kind == "typed")
        for name, tensor in batch.items():
            assert tensor.dtype == torch.int64
            assert torch.equal(tensor, own[name]), name


def test_a_batch_is_as_wide_as_its_own_longest_row(tokenizers: dict[str, Any]) -> None:
    encoded = encode_texts(tokenizers["plain"], HEADLINES, None, None, max_length=128)
    assert encoded.lengths.tolist() == [7, 4, 2, 18, 5]
    assert encoded.batch(np.array([1, 4]), CPU)["input_ids"].shape == (2, 5)
    assert encoded.batch(np.array([0, 3]), CPU)["input_ids"].shape == (2, 18)


def test_padding_takes_the_tokenizers_own_token() -> None:
    tokenizer = tiny_tokenizer(typed=False)
    tokenizer.pad_token = "[MASK]"
    encoded = encode_texts(tokenizer, HEADLINES, None, None, max_length=128)
    batch = encoded.batch(np.array([0, 1]), CPU)
    assert batch["input_ids"][1, 4:].tolist() == [4, 4, 4]
    assert batch["attention_mask"][1].tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_long_texts_are_cut_off_and_counted(tokenizers: dict[str, Any]) -> None:
    encoded = encode_texts(tokenizers["plain"], HEADLINES, None, None, max_length=6)
    assert encoded.lengths.tolist() == [6, 4, 2, 6, 5]
    assert encoded.truncated == 2
    assert encoded.input_ids[encoded.offsets[1] - 1] == 3  # the closing [SEP] is kept
    assert encode_texts(tokenizers["plain"], HEADLINES, None, None, max_length=19).truncated == 0


def test_labels_may_be_unknown_and_rows_none(tokenizers: dict[str, Any]) -> None:
    assert encode_texts(tokenizers["plain"], HEADLINES, None, None, 16).labels.tolist() == [-1] * 5
    for pair in (None, []):
        none = encode_texts(tokenizers["plain"], [], pair, None, 16)
        assert (len(none), none.truncated, none.offsets.tolist()) == (0, 0, [0])
        assert none.offsets.dtype == np.int64


def test_a_data_set_is_encoded_split_by_split(tiny_base: Callable[[str], Path]) -> None:
    def split(text: list[str]) -> Texts:
        return Texts(text, None, np.arange(len(text)) % 2)

    data = Dataset(
        train=split(WORDS[:6]),
        validation=split(WORDS[6:10]),
        test=split(WORDS[10:12]),
        label_names=("no", "yes"),
        text_columns=("text",),
        label_column="label",
        source="words",
        fingerprint="",
        rows_read=12,
        dropped={},
        left_out_classes={},
    )
    encoded = encode_dataset(data, load_tokenizer(resolve_base_model(str(tiny_base("bert")))), 16)
    assert [len(part) for part in (encoded.train, encoded.validation, encoded.test)] == [6, 4, 2]
    assert encoded.validation.labels.tolist() == [0, 1, 0, 1]
    assert encoded.label_names == ("no", "yes")
    assert encoded.token_summary() == {
        "median": 3,
        "p95": 3,
        "max": 3,
        "truncated": 0,
        "unknown": 0.0,
        "unreadable": 0,
        "chunks": 0,
    }


@pytest.mark.parametrize("pair", [None, ["bank", "\u5929", "", ""]])
def test_tokens_that_the_tokenizer_does_not_know_are_counted(
    tokenizers: dict[str, Any], pair: list[str] | None
) -> None:
    texts = ["markets \u4eca\u5929", "\U0001f99c", "\u200b", "film star"]
    tokenizer = tokenizers["typed"]
    encoded = count_unknown(tokenizer, encode_texts(tokenizer, texts, pair, None, max_length=9))
    more = 2 if pair else 0
    assert (encoded.text_tokens, encoded.unknown_tokens) == (6 + more, 3 + more // 2)
    assert encoded.unreadable == 2
    none = count_unknown(tokenizer, encode_texts(tokenizer, [], None, None, max_length=9))
    assert (none.text_tokens, none.unknown_tokens, none.unreadable) == (0, 0, 0)


def test_a_tokenizer_that_falls_back_to_bytes_knows_everything() -> None:
    """GPT-2 names its end of a text as the unknown token, too; others have none."""
    tokenizer = tiny_tokenizer(typed=False)
    for unknown in ("[SEP]", None):
        tokenizer.unk_token = unknown
        encoded = count_unknown(tokenizer, encode_texts(tokenizer, ["film [SEP]"], None, None, max_length=9))
        assert (encoded.text_tokens, encoded.unknown_tokens, encoded.unreadable) == (1, 0, 0)


def test_class_weights_are_scikit_learns_balanced_ones() -> None:
    data = dataset(rows=60)
    labels = data.train.labels
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(data.class_weights(), expected, rtol=1e-6)
    assert data.class_weights().dtype == np.float32
    assert data.class_weights()[labels].mean() == pytest.approx(1)


def test_a_class_without_training_rows_has_a_finite_weight() -> None:
    data = dataset()
    four = EncodedDataset(data.train, data.validation, data.test, (*data.label_names, "absent"))
    assert np.isfinite(four.class_weights()).all()


def test_other_labels_share_the_tokens() -> None:
    data = dataset(rows=60)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    labels = {name: part.labels + 1 for name, part in parts.items()}
    other = data.relabelled(labels, ("new", *data.label_names))
    assert other.label_names == ("new", *data.label_names)
    for name, part in parts.items():
        found = getattr(other, name)
        assert found.input_ids is part.input_ids
        np.testing.assert_array_equal(found.labels, part.labels + 1)


@pytest.mark.parametrize("typed", [True, False])
def test_a_part_has_the_rows_that_were_asked_for_and_shares_none_of_them(typed: bool) -> None:
    whole = dataset(typed=typed)
    before = whole.train.input_ids.copy()
    rows = np.array([41, 0, 7, 7])
    taken = whole.train.take(rows)
    for number, row in enumerate(rows):
        new, old = (
            texts.batch(np.array([place]), torch.device("cpu"))
            for texts, place in ((taken, number), (whole.train, row))
        )
        assert new.keys() == old.keys()
        assert all(torch.equal(new[name], old[name]) for name in new)
    assert taken.labels.tolist() == whole.train.labels[rows].tolist()
    taken.input_ids[:] = 0
    taken.labels[:] = 0
    assert np.array_equal(whole.train.input_ids, before)
    assert len(whole.train.take(np.array([], dtype=np.int64))) == 0

    part = whole.take(Part(np.arange(9), np.arange(5)))
    assert (len(part.train), len(part.validation), part.test) == (9, 5, whole.test)
