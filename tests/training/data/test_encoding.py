"""Flat arrays against the tokenizer's own padded output, and the batches made from them."""

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
from lorasweep.training.data.encoding import (
    EncodedDataset,
    EncodedTexts,
    count_unknown,
    encode_dataset,
    encode_texts,
    epoch_batches,
    evaluation_batches,
)
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


class TestEpochBatches:
    lengths = np.random.default_rng(3).integers(4, 60, size=2503)

    def test_each_row_once_in_batches_of_the_asked_size(self) -> None:
        batches = epoch_batches(self.lengths, 16, seed=0, epoch=0)
        assert sorted(np.concatenate(batches)) == list(range(2503))
        assert len(batches) == 157
        assert sorted(len(batch) for batch in batches) == [7] + [16] * 156

    @pytest.mark.parametrize("rows", [1, 15, 16, 17])
    def test_few_rows(self, rows: int) -> None:
        batches = epoch_batches(self.lengths[:rows], 16, seed=0, epoch=0)
        assert len(batches) == -(-rows // 16)
        assert sorted(np.concatenate(batches)) == list(range(rows))

    def test_the_same_arguments_give_the_same_order(self) -> None:
        assert self.order(0, 1) == self.order(0, 1)

    def test_epochs_and_seeds_differ(self) -> None:
        orders = [self.order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
        assert len({tuple(order) for order in orders}) == 4

    def test_does_not_touch_the_global_random_numbers(self) -> None:
        np.random.seed(0)
        expected = np.random.random()
        np.random.seed(0)
        self.order(0, 0)
        assert np.random.random() == expected

    def test_little_is_padded(self) -> None:
        def waste(batches: list[np.ndarray]) -> float:
            padded = sum(self.lengths[rows].max() * len(rows) for rows in batches)
            return 1 - self.lengths.sum() / padded

        shuffled = np.random.default_rng(0).permutation(2503)
        random = waste([shuffled[i : i + 16] for i in range(0, 2503, 16)])
        assert random > 0.4
        assert waste(epoch_batches(self.lengths, 16, seed=0, epoch=0)) < 0.05

    def test_long_and_short_batches_are_mixed(self) -> None:
        batches = epoch_batches(self.lengths, 16, seed=0, epoch=0)
        means = np.array([self.lengths[rows].mean() for rows in batches])
        # Sorted batches would teach short texts first: neighbours must know nothing of each other.
        assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2

    def order(self, seed: int, epoch: int) -> list[int]:
        return [int(row) for row in np.concatenate(epoch_batches(self.lengths, 16, seed, epoch))]


def test_evaluation_batches_are_bounded_and_cover_each_row_once() -> None:
    lengths = np.random.default_rng(3).integers(4, 120, size=1001)
    batches = list(evaluation_batches(lengths, max_rows=64, max_tokens=1500))
    assert sorted(np.concatenate(batches)) == list(range(1001))
    assert max(len(rows) for rows in batches) == 64
    assert max(len(rows) * lengths[rows].max() for rows in batches) <= 1500
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert padded < 1.1 * lengths.sum()


def test_a_row_longer_than_the_bound_stands_alone() -> None:
    assert [rows.tolist() for rows in evaluation_batches(np.array([5, 50, 6]), max_tokens=20)] == [
        [0, 2],
        [1],
    ]


def test_rows_of_no_split_make_no_batches() -> None:
    empty = EncodedTexts(np.zeros(0, np.int32), None, np.zeros(1, np.int64), np.zeros(0, np.int64), 0)
    assert len(empty) == 0
    assert list(evaluation_batches(empty.lengths)) == []
