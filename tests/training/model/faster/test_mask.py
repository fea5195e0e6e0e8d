"""Masks made without waiting for the device against transformers' own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bases import ALIKE, FAMILIES, OTHERS
from tiny_trials import CPU, FP32, allow_meta, hyperparameters, loaded, texts
from torch import nn

from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.faster.mask import make_masks_without_waiting, takes_unpadded
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy

META = torch.device("meta")
TYPED = {"bert", "electra"}
# DeBERTa asks no question, and has no masks of transformers' making.
OWN_MASKS = {"deberta", "deberta-v2"}
# T5 counts the end tokens of its rows, which waits in any case.
WAITING = sorted(FAMILIES.keys() - OWN_MASKS - {"t5"})


def classifier(tiny_base: Callable[[str], Path], family: str, **changes: Any) -> nn.Module:
    model = build_classifier(loaded(tiny_base(family)), hyperparameters(**changes), 0, FP32)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight.data, std=0.1)
    return model


def batches(split: EncodedTexts, model: nn.Module) -> list[dict[str, torch.Tensor]]:
    """One with padding, one without, one of rows of the same length that are all padded."""
    same = np.flatnonzero(split.lengths == np.bincount(split.lengths).argmax())
    gathered = device_texts(model, split, CPU)
    shapes = [gathered.shape(rows) for rows in (np.arange(12), same)]
    assert [shape.full for shape in shapes] == [False, True]
    return [gathered.batch(np.arange(12)), gathered.batch(same), gathered.batch(same, shapes[1].length + 3)]


def logits_and_gradients(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad(set_to_none=True)
    logits = model(**batch).logits
    (logits * torch.arange(logits.shape[1])).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [logits.detach(), *gradients]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_logits_and_gradients_stay_the_same(tiny_base: Callable[[str], Path], family: str) -> None:
    split = texts(40, typed=family in TYPED)
    model = classifier(tiny_base, family)
    expected = [logits_and_gradients(model, batch) for batch in batches(split, model)]
    make_masks_without_waiting(model.get_base_model())  # type: ignore[operator]
    assert takes_unpadded(model) == (family not in OWN_MASKS)
    for plain, batch in zip(expected, batches(split, model), strict=True):
        found = logits_and_gradients(model, batch)
        assert len(found) == len(plain) > 3
        assert all(map(torch.equal, found, plain))


@pytest.mark.parametrize("family", sorted(ALIKE | OTHERS))
def test_models_of_other_types_stay_the_same_too(tiny_base: Callable[[str], Path], family: str) -> None:
    """Encoder-decoders, decoders and models with masks of their own."""
    split = texts(40, typed=False)
    model = loaded(tiny_base(family)).model.eval().requires_grad_(True)
    expected = [logits_and_gradients(model, batch) for batch in batches(split, model)]
    make_masks_without_waiting(model)
    for plain, batch in zip(expected, batches(split, model), strict=True):
        found = logits_and_gradients(model, batch)
        assert len(found) == len(plain)
        assert all(map(torch.equal, found, plain))


def test_a_batch_without_padding_has_no_mask(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which lets torch take its fastest attention."""
    masked: list[bool] = []
    attend = nn.functional.scaled_dot_product_attention

    def spy(*inputs: Any, attn_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
        masked.append(attn_mask is not None)
        return attend(*inputs, attn_mask=attn_mask, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    model = loaded(tiny_base("bert")).model
    make_masks_without_waiting(model)
    for batch in batches(texts(40), model):
        model(**batch)
    assert masked == [True, True, False, False, True, True]


def step(model: nn.Module, gathered: DeviceTexts, rows: np.ndarray) -> None:
    labels = gathered.labels[gathered.place(rows)]
    nn.functional.cross_entropy(model(**gathered.batch(rows)).logits, labels).backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("family", WAITING)
def test_no_pass_waits_for_the_device(
    tiny_base: Callable[[str], Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device a look at a value raises, as transformers' own masks take one."""
    allow_meta(monkeypatch)
    split = texts(40, typed=family in TYPED)

    plain = classifier(tiny_base, family).to(META)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step(plain, device_texts(plain, split, META), np.arange(12))
    model = build_classifier(
        loaded(tiny_base(family)), hyperparameters(dropout=0.1), 0, AmpPolicy("fp32", META)
    ).to(META)
    gathered = device_texts(model, split, META)
    for rows in (np.arange(12), np.array([3])):
        step(model, gathered, rows)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", WAITING)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_pass_waits_for_a_gpu(tiny_base: Callable[[str], Path], family: str, precision: Any) -> None:
    split, amp = texts(40, typed=family in TYPED), AmpPolicy(precision, torch.device("cuda", 0))
    model = build_classifier(loaded(tiny_base(family)), hyperparameters(), 0, amp).to(amp.device)
    gathered = device_texts(model, split, amp.device)
    step(model, gathered, np.arange(12))  # the first use may set up libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        for rows in (np.arange(12), np.array([3])):
            with amp.autocast():
                step(model, gathered, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_copy_on_a_cpu_asks_as_before(tiny_base: Callable[[str], Path]) -> None:
    model = classifier(tiny_base, "bert")
    assert not takes_unpadded(model)
    batch = device_texts(model, texts(4), CPU).batch(np.arange(4))
    assert batch["attention_mask"].dtype == torch.int64


def test_its_implementation_is_not_saved(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    """A folder names none that only this package knows."""
    model = loaded(tiny_base("bert")).model
    make_masks_without_waiting(model)
    model.config.save_pretrained(tmp_path)  # type: ignore[union-attr,operator]
    assert "lorasweep" not in (tmp_path / "config.json").read_text()
