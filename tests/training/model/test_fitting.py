"""Whether base model, tokenizer and rows fit together: lengths, vocabularies, padding, one forward pass."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_bases import make_tiny_base
from tiny_trials import CPU, LABELS, loaded, texts

from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.errors import LorasweepError, ModelError, SettingsError
from lorasweep.training.model.base_model import empty_model, load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.fitting import check_fit, check_rows, length_notes, most_tokens

# Family → tokens of the longest row, of 64 positions in its configuration.
MOST = {
    "bert": 64,
    "distilbert": 64,
    "electra": 64,
    "albert": 64,
    "fnet": 64,
    "flaubert": 64,
    "nystromformer": 64,
    "bart": 64,  # of 66
    "opt": 64,  # of 66
    "gpt2": 64,
    "mpnet": 62,  # counts from 2, whatever pads
    "roberta": 63,  # counts from behind the padding token, here number 0
    "xlm-roberta": 62,
    "longformer": 62,
    "deberta": 64,
    "deberta-v2": 64,
}
UNLIMITED = ("modernbert", "llama", "qwen3", "gemma2", "gpt_neox", "t5", "xlnet", "funnel")


def long_row(tokens: int) -> EncodedTexts:
    """A row of four tokens, and one of so many."""
    ids = np.array([2, 6, 7, 3, 2, *[7] * (tokens - 2), 3], dtype=np.int32)
    return EncodedTexts(ids, None, np.array([0, 4, 4 + tokens]), np.zeros(2, np.int64), 0)


def fit(folder: Path, max_length: int = 16) -> None:
    base = resolve_base_model(str(folder))
    check_fit(empty_model(base), base, load_tokenizer(base), max_length)


def line(does: Callable[[], object], kind: type[LorasweepError]) -> str:
    with pytest.raises(kind) as caught:
        does()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestLength:
    @pytest.mark.parametrize("family", MOST)
    def test_is_what_the_model_really_reads(self, tiny_base: Callable[[str], Path], family: str) -> None:
        folder, most = tiny_base(family), MOST[family]
        base = loaded(folder)
        assert most_tokens(base.model) == most
        fit(folder, most)
        asked = (
            f"--max-length {most + 1}: base model {folder} reads at most {most} tokens; use {most} or less"
        )
        assert line(lambda: fit(folder, most + 1), SettingsError) == asked
        tokenizer = load_tokenizer(base.base)
        check_rows(base, tokenizer, [long_row(most)])
        if family not in ("nystromformer", "longformer"):  # which pad to a multiple of something
            refused = line(lambda: check_rows(base, tokenizer, [long_row(most + 1)]), ModelError)
            assert f"cannot read the longest row, of {most + 1} tokens" in refused

    @pytest.mark.parametrize("family", UNLIMITED)
    def test_of_relative_and_rotary_positions_is_not_limited(
        self, tiny_base: Callable[[str], Path], family: str
    ) -> None:
        base = loaded(tiny_base(family))
        assert most_tokens(base.model) is None
        fit(tiny_base(family), 100)
        check_rows(base, load_tokenizer(base.base), [long_row(100)])

    def test_of_a_deberta_without_absolute_positions_is_not_limited(self, tmp_path: Path) -> None:
        folder = make_tiny_base("deberta-v2", tmp_path / "base", position_biased_input=False)
        fit(folder, 100)
        check_rows(loaded(folder), load_tokenizer(resolve_base_model(str(folder))), [long_row(100)])

    def test_of_a_roberta_is_two_less_than_its_positions(self, tmp_path: Path) -> None:
        folder = make_tiny_base("roberta", tmp_path / "base", max_position_embeddings=66, pad_token_id=1)
        fit(folder, 64)
        refused = line(lambda: fit(folder, 128), SettingsError)
        assert refused == f"--max-length 128: base model {folder} reads at most 64 tokens; use 64 or less"

    @pytest.mark.parametrize("family", ["qwen3", "gpt_neox", "modernbert", "deberta-v2"])
    def test_beyond_what_the_model_was_pretrained_on_is_named(self, tmp_path: Path, family: str) -> None:
        changes = {"position_biased_input": False} if family == "deberta-v2" else {}
        folder = make_tiny_base(family, tmp_path / "base", **changes)
        base = resolve_base_model(str(folder))
        model = empty_model(base)
        assert length_notes(model, base, 64) == []
        assert length_notes(model, base, 65) == [
            f"the longest text has 65 tokens, and {folder} was pretrained on at most 64: it can read them, but may "
            "not gain from what is beyond; --max-length 64 cuts them off"
        ]

    @pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])  # limited, or of no known length
    def test_of_others_needs_no_note(self, tiny_base: Callable[[str], Path], family: str) -> None:
        base = resolve_base_model(str(tiny_base(family)))
        changed = empty_model(base)
        if family == "t5":
            del changed.config.max_position_embeddings  # type: ignore[union-attr]  # of the tiny models only
        assert length_notes(changed, base, 10**6) == []

    def test_counts_the_rows_of_all_splits(self, tiny_base: Callable[[str], Path]) -> None:
        base = loaded(tiny_base("bert"))
        empty = replace(long_row(5), offsets=np.zeros(1, np.int64), labels=np.zeros(0, np.int64))
        splits = [texts(3, typed=False), empty, long_row(65)]
        assert "65 tokens" in line(lambda: check_rows(base, load_tokenizer(base.base), splits), ModelError)
        chunks = replace(long_row(60), documents=np.array([0, 2]), labels=np.zeros(1, np.int64))
        check_rows(base, load_tokenizer(base.base), [chunks])  # one text of 64 tokens, read in two parts
        check_rows(
            base,
            load_tokenizer(base.base),
            [replace(texts(9), documents=np.array([0, 9]), labels=np.zeros(1))],
        )


class TestVocabulary:
    def test_of_a_tokenizer_that_knows_more_than_the_model(
        self, tiny_base: Callable[[str], Path], tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(tiny_base("bert"), tmp_path / "bert"))
        tokenizer = load_tokenizer(resolve_base_model(str(folder)))
        tokenizer.add_tokens(["[NEW]", "[NEWER]"])
        tokenizer.save_pretrained(folder)
        refused = line(lambda: fit(folder), ModelError)
        size = len(tokenizer)
        assert (
            f"go up to number {size - 1} ('[NEWER]'), and its embedding has only {size - 2} rows" in refused
        )
        assert f"resize_token_embeddings({size})" in refused

    def test_of_a_model_that_knows_more_than_the_tokenizer(self, tmp_path: Path) -> None:
        fit(make_tiny_base("bert", tmp_path / "bert", vocab_size=64))


class TestPadding:
    """A decoder reads a text's label at the last token that is not padding."""

    def decoder(self, folder: Path, family: str = "llama", **entries: Any) -> Path:
        make_tiny_base(family, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | entries))
        return folder

    def test_that_the_configuration_lacks_is_the_tokenizers(self, tmp_path: Path) -> None:
        base = resolve_base_model(str(self.decoder(tmp_path / "base", pad_token_id=None)))
        assert base.pad_token_id == 0
        right = load_base(resolve_base_model(str(self.decoder(tmp_path / "right"))), LABELS, 0, CPU)
        found = load_base(base, LABELS, 0, CPU)
        assert found.model.config.pad_token_id == 0
        rows = texts(6, typed=False).batch(np.arange(6), CPU)
        with torch.no_grad():
            torch.testing.assert_close(found.model.eval()(**rows).logits, right.model.eval()(**rows).logits)
        check_rows(found, load_tokenizer(base), [texts(6, typed=False)])

    def test_that_is_another_than_the_tokenizers_is_the_tokenizers(self, tmp_path: Path) -> None:
        base = loaded(self.decoder(tmp_path / "base", pad_token_id=5))
        assert base.base.config_entries == {"pad_token_id": 0}
        check_rows(base, load_tokenizer(base.base), [texts(6, typed=False)])

    def test_that_is_another_is_refused_where_the_family_is_not_known(self, tmp_path: Path) -> None:
        base = loaded(self.decoder(tmp_path / "base", "stablelm", pad_token_id=5))
        refused = line(
            lambda: check_rows(base, load_tokenizer(base.base), [texts(6, typed=False)]), ModelError
        )
        assert "takes padding for text" in refused
        assert '"pad_token_id": 0 into config.json' in refused

    def test_of_an_encoder_does_not_matter(self, tmp_path: Path) -> None:
        base = loaded(make_tiny_base("bert", tmp_path / "base", pad_token_id=5))
        check_rows(base, load_tokenizer(base.base), [texts(6, typed=False)])


def test_weights_that_are_not_numbers(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base("bert"), tmp_path / "bert"))
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    base = loaded(folder)
    assert "not finite" in line(lambda: check_rows(base, load_tokenizer(base.base), [texts(6)]), ModelError)
