"""Texts longer than the model reads: shortened in the middle, or in chunks."""

from __future__ import annotations

from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bases import WORDS, tiny_tokenizer

from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.data.encoding import count_unknown, encode_texts
from lorasweep.training.data.long_texts import members, pooled, window_places
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Long

CLS, SEP = 2, 3
SHORT, LONG = "film star", " ".join(WORDS[:20])
TOKENIZERS = {
    "typed": tiny_tokenizer(True),
    "untyped": tiny_tokenizer(False),
    "bare": tiny_tokenizer(False, True),
}
TOKENIZERS["bare"].pad_token = "[SEP]"  # as `load_tokenizer` sets it for decoders


def rows_of(texts: EncodedTexts) -> list[list[list[int]]]:
    """Token ids of each row's windows."""
    windows = [ids.tolist() for ids in np.split(texts.input_ids, texts.offsets[1:-1])]
    bounds = np.arange(len(windows) + 1) if texts.documents is None else texts.documents
    return [windows[start:end] for start, end in pairwise(bounds)]


def body(ids: list[int]) -> list[int]:
    return [token for token in ids if token not in (CLS, SEP)]


@pytest.mark.parametrize("long", ["head-tail", "chunks"])
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("pair", [False, True])
def test_texts_that_fit_are_read_as_ever(kind: str, pair: bool, long: Long) -> None:
    tokenizer, texts = TOKENIZERS[kind], ["", SHORT, "team wins", " ".join(WORDS[: 9 if pair else 14])]
    seconds = ["bank", "", SHORT, "shares rise fall [SEP]"] if pair else None
    most = len(tokenizer(texts[3], seconds and seconds[3])["input_ids"])  # the last one just fits
    cut, read = (encode_texts(tokenizer, texts, seconds, np.arange(4), most, how) for how in ("cut", long))
    assert (cut.truncated, read.truncated, read.documents) == (1, 0, None)
    for name in ("input_ids", "type_ids", "offsets", "labels"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(read, name))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_head_and_tail(kind: str) -> None:
    """A quarter of the room for the beginning, the rest for the end: 128 + 382 of 510 in Sun et al., 2019."""
    tokenizer = TOKENIZERS[kind]
    around = tokenizer.num_special_tokens_to_add()
    words = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    (ids,) = rows_of(encode_texts(tokenizer, [LONG], None, None, 12 + around, "head-tail"))[0]
    kept = words[:3] + words[-9:]
    assert ids == ([CLS, *kept, SEP] if around else kept)
    (places,) = window_places([1, *[0] * 900, 1], 902, 512, "head-tail")
    assert places.tolist() == [*range(129), *range(519, 902)]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_chunks_hold_every_token_once_and_are_of_one_length(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    around = tokenizer.num_special_tokens_to_add()
    words = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    texts = encode_texts(tokenizer, [SHORT, LONG, SHORT], None, np.array([4, 5, 6]), 9 + around, "chunks")
    assert texts.documents is not None
    assert texts.documents.tolist() == [0, 1, 4, 5]
    chunks = rows_of(texts)[1]
    assert [len(chunk) - around for chunk in chunks] == [7, 7, 6]
    assert list(chain(*map(body, chunks))) == words
    if around:
        assert all((chunk[0], chunk[-1]) == (CLS, SEP) for chunk in chunks)
    assert (len(texts), texts.truncated, texts.chunks, texts.labels.tolist()) == (3, 1, 3, [4, 5, 6])
    assert texts.lengths.tolist() == [2 + around, 20 + 3 * around, 2 + around]


@pytest.mark.parametrize("long", ["head-tail", "chunks"])
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("turned", [False, True])
def test_of_a_pair_the_longer_text_is_shortened_beside_the_other(kind: str, turned: bool, long: Long) -> None:
    tokenizer = TOKENIZERS[kind]
    around = tokenizer.num_special_tokens_to_add(pair=True)
    pair = (LONG, SHORT) if turned else (SHORT, LONG)
    texts = encode_texts(tokenizer, [pair[0]], [pair[1]], None, 8 + around, long)
    words, short = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (LONG, SHORT))
    parts = [words[:2] + words[-4:]] if long == "head-tail" else [words[i : i + 5] for i in range(0, 20, 5)]
    expected = [(part, short) if turned else (short, part) for part in parts]
    wanted = [[CLS, *a, SEP, *b, SEP] if around else [*a, *b] for a, b in expected]
    assert rows_of(texts) == [wanted]
    if kind == "typed":
        types = [[0] * (len(a) + 2) + [1] * (len(b) + 1) for a, b in expected]
        assert texts.type_ids is not None
        assert texts.type_ids.tolist() == list(chain(*types))


def test_of_two_long_texts_the_shorter_gets_half_the_room() -> None:
    first, second = " ".join(WORDS[:9]), LONG
    texts = encode_texts(TOKENIZERS["bare"], [first], [second], None, 10, "chunks")
    one, other = (TOKENIZERS["bare"](text)["input_ids"] for text in (first, second))
    assert rows_of(texts) == [[one[:5] + other[i : i + 5] for i in range(0, 20, 5)]]


def test_special_tokens_written_in_a_text_are_text() -> None:
    texts = encode_texts(TOKENIZERS["untyped"], ["[SEP] film star wins award [CLS]"], None, None, 5, "chunks")
    words = TOKENIZERS["untyped"]("film star wins award", add_special_tokens=False)["input_ids"]
    assert rows_of(texts) == [[[CLS, SEP, *words[:2], SEP], [CLS, *words[2:], CLS, SEP]]]


def test_a_length_without_room_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        encode_texts(TOKENIZERS["typed"], [SHORT], [LONG], None, 4, "chunks")
    assert str(caught.value) == (
        "--max-length 4: with --long chunks a text needs 2 tokens beside 3 tokens that the tokenizer adds; "
        "use 5 or more"
    )


def test_a_slow_tokenizer(tmp_path: Path) -> None:
    from transformers import CanineTokenizer

    tokenizer: Any = CanineTokenizer()
    (chunks,) = rows_of(encode_texts(tokenizer, ["abcdef"], None, None, 6, "chunks"))
    assert chunks == [[57344, 97, 98, 99, 57345], [57344, 100, 101, 102, 57345]]


def test_rows_are_taken_and_counted_with_all_their_windows() -> None:
    tokenizer = TOKENIZERS["typed"]
    odd = " ".join(["[MASK]"] * 12)
    texts = count_unknown(
        tokenizer, encode_texts(tokenizer, [SHORT, LONG, odd, "xyz"], None, np.arange(4), 9, "chunks")
    )
    # Twelve special tokens are no words; one of the rows is unknown, one without a word.
    assert (texts.unreadable, texts.unknown_tokens) == (2, 1)
    rows = np.array([3, 1, 0])
    taken = texts.take(rows)
    assert rows_of(taken) == [rows_of(texts)[row] for row in rows]
    assert taken.labels.tolist() == [3, 1, 0]
    assert len(texts.windows) == len(texts.offsets) - 1 == 7
    assert texts.batch(np.array([0, 1]), torch.device("cpu"))["input_ids"].shape == (4, 9)
    cut = encode_texts(tokenizer, [SHORT, LONG], None, None, 9)
    assert cut.windows is cut
    assert rows_of(cut.take(np.array([1]))) == [rows_of(cut)[1]]


def test_members_and_means() -> None:
    numbers, bounds = members(np.array([0, 2, 3, 6]), np.array([2, 0]))
    assert (numbers.tolist(), bounds.tolist()) == ([3, 4, 5, 0, 1], [0, 3, 5])
    logits = torch.arange(6.0).reshape(3, 2).requires_grad_()
    means = pooled(logits, [2, 1])
    assert means.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    means[0].sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.5, 0.5], [0.5, 0.5], [0, 0]]
