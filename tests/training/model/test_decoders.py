"""Decoders: the label is read at a row's last token that is not padding, whatever stands beside the row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bases import ALIKE, FAMILIES, make_tiny_base
from tiny_trials import CPU, LABELS, hyperparameters, loaded, texts
from torch import nn

from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.data.encoding import encode_texts
from lorasweep.training.model.base_model import load_tokenizer
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.fitting import check_fit, check_rows
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Precision

DECODERS = [name for name, family in MODEL_FAMILIES.items() if family.decoder]
# A published decoder's tokenizer: of one word, of many, of none, and with the end token within.
TEXTS = [
    "markets",
    "senate votes on budget film star wins award",
    "",
    "game season [SEP] album",
    "city mayor",
]


def classifier(base: Any, precision: Precision = "fp32") -> nn.Module:
    model = build_classifier(base, hyperparameters(), 0, AmpPolicy(precision, CPU))
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight.data, std=0.1)
    return model


def one_by_one(model: nn.Module, split: EncodedTexts, amp: AmpPolicy) -> np.ndarray:
    return np.concatenate(
        [predict_logits(model, split.take(np.array([row])), amp) for row in range(len(split))]
    )


def test_all_are_among_the_tiny_models() -> None:
    assert set(DECODERS) <= FAMILIES.keys() | ALIKE.keys()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", [*DECODERS, "t5", "mt5", "albert"])
def test_rows_of_mixed_lengths_are_as_one_by_one(
    family: str, precision: Precision, tiny_base: Callable[[str], Path]
) -> None:
    """Alone a row has no mask, and in a batch it has one."""
    base, amp = loaded(tiny_base(family)), AmpPolicy(precision, CPU)
    model, split = classifier(base, precision), texts(12, typed=False)
    together, alone = predict_logits(model, split, amp), one_by_one(model, split, amp)
    scale = np.abs(alone).max()
    assert np.abs(alone - alone.mean(axis=0)).max() > 0.1 * scale  # the texts show in the logits
    # As much as bf16 itself costs these random models.
    exact = predict_logits(classifier(base), split, AmpPolicy("fp32", CPU))
    allowed = 1e-5 * scale if precision == "fp32" else 2 * np.abs(alone - exact).mean()
    assert np.abs(together - alone).mean() <= allowed


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "gpt2"])
def test_that_know_no_padding_pad_with_the_end_token(family: str, tmp_path: Path) -> None:
    base = loaded(make_tiny_base(family, tmp_path / family, bare=True))
    assert base.base.config_entries == {"pad_token_id": 3}
    tokenizer = load_tokenizer(base.base)
    assert (tokenizer.pad_token_id, tokenizer.padding_side) == (3, "right")
    assert base.model.config.pad_token_id == 3
    assert not base.model.config.use_cache
    split = encode_texts(tokenizer, TEXTS, None, None, 16)
    assert split.lengths.tolist() == [1, 8, 1, 4, 2]
    check_fit(base.model, base.base, tokenizer, 16)
    check_rows(base, tokenizer, [split])
    model, amp = classifier(base), AmpPolicy("fp32", CPU)
    together = predict_logits(model, split, amp)
    np.testing.assert_allclose(together, one_by_one(model, split, amp), atol=1e-5)
    # As the tokenizer itself pads; an empty text it gives no token at all.
    rows = tokenizer([text for text in TEXTS if text], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model.eval()(**rows).logits.numpy()
    np.testing.assert_allclose(logits, together[[0, 1, 3, 4]], atol=1e-5)


def test_a_padding_token_that_the_embedding_lacks(tmp_path: Path) -> None:
    """Added to the tokenizer alone, as is often advised."""
    folder = make_tiny_base("gpt2", tmp_path / "gpt2", bare=True)
    tokenizer: Any = load_tokenizer(loaded(folder).base)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    base = loaded(folder)
    assert base.base.pad_token_id == len(tokenizer) - 1
    with pytest.raises(Exception, match=f"resize_token_embeddings[(]{len(tokenizer)}[)]"):
        check_fit(base.model, base.base, load_tokenizer(base.base), 16)


def test_what_the_configuration_says_of_an_encoder_stays(tmp_path: Path) -> None:
    """RoBERTa's positions begin behind that number."""
    folder = make_tiny_base("roberta", tmp_path / "roberta", pad_token_id=1)
    config = json.loads((folder / "config.json").read_text())
    assert config["pad_token_id"] == 1
    base = loaded(folder, LABELS)
    assert base.base.config_entries == {}
    assert base.model.config.pad_token_id == 1
