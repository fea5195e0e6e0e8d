"""The estimate of a trial's memory, beside what a trial really keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorasweep.training.amp_types import Precision
from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.data.encoding import encode_texts
from lorasweep.training.model.base_model import LoadedBase, load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import build_classifier, trainable_parameters
from lorasweep.training.model.memory import SPARE, RowMemory, adapter_size, measure_row, trial_bytes
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.target_modules import resolve_target_modules
from lorasweep.training.settings import Hyperparameters, Method

CPU = torch.device("cpu")


def loaded_with_texts(folder: Path) -> tuple[LoadedBase, EncodedTexts]:
    """A tiny base model, and two rows of which the first is the longest."""
    base = resolve_base_model(str(folder))
    texts = encode_texts(load_tokenizer(base), ["film star " * 8, "film"], None, None, 16)
    return load_base(base, ("a", "b", "c"), 0, CPU), texts


def kept(model: Any, amp: AmpPolicy, texts: EncodedTexts, rows: int) -> int:
    """Bytes that a forward pass of so many of the longest rows keeps, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), amp.autocast():
        model(**texts.batch(np.zeros(rows, dtype=np.int64), CPU))
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "dora", "full"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2", "modernbert"])
def test_rows_take_what_was_estimated(
    tiny_base: Callable[[str], Path], family: str, method: Method, precision: Precision
) -> None:
    """Never less, or trials would not fit; with the spare part at most 2.5 times as much."""
    loaded, texts = loaded_with_texts(tiny_base(family))
    amp = AmpPolicy(precision, CPU)
    measured = measure_row(loaded, texts)
    estimated = (trial_bytes(measured, method, 16, 0, amp) - trial_bytes(measured, method, 8, 0, amp)) / 8
    model = build_classifier(loaded, Hyperparameters(method=method), 0, amp)
    row = (kept(model, amp, texts, 16) - kept(model, amp, texts, 8)) / 8
    assert 1.1 * row <= estimated <= 2.5 * row


def test_a_measured_model_is_as_before(tiny_base: Callable[[str], Path]) -> None:
    loaded, texts = loaded_with_texts(tiny_base("bert"))
    frozen = dict(loaded.model.named_parameters())
    frozen["classifier.weight"].requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in frozen.items()}
    assert measure_row(loaded, texts) == measure_row(loaded, texts)
    assert {name: parameter.requires_grad for name, parameter in frozen.items()} == before
    assert all(parameter.grad is None for parameter in frozen.values())


def test_the_longest_row_is_measured(tiny_base: Callable[[str], Path]) -> None:
    loaded, texts = loaded_with_texts(tiny_base("bert"))
    short = encode_texts(load_tokenizer(loaded.base), ["film", "film"], None, None, 16)
    assert measure_row(loaded, texts).row > 2 * measure_row(loaded, short).row


def test_weights_are_counted_by_method_and_type() -> None:
    """Of a model of 100 numbers, 80 of them in linear layers, and an adapter of 10."""
    measured = RowMemory(row=0, base=400, linears=320)
    fp32, bf16, fp16 = (AmpPolicy(name, CPU) for name in ("fp32", "bf16", "fp16"))

    def bytes_of(method: Method, amp: AmpPolicy) -> float:
        return trial_bytes(measured, method, 1, 10, amp) / SPARE

    def about(value: float) -> Any:
        return pytest.approx(value, abs=1)

    assert bytes_of("lora", fp32) == about(400 + 10 * 16)
    assert bytes_of("lora", bf16) == bytes_of("rslora", fp16) == about(80 + 160 + 10 * 18)
    assert bytes_of("dora", bf16) == about(400 + 160 + 10 * 18)
    assert bytes_of("full", fp32) == about(100 * 16)
    assert bytes_of("full", bf16) == about(100 * 18)


def test_the_adapter_is_counted_as_it_is_built(tiny_base: Callable[[str], Path]) -> None:
    loaded, _ = loaded_with_texts(tiny_base("bert"))
    names = resolve_target_modules(loaded.model, "bert", "all-linear")
    head = sum(p.numel() for name in loaded.missing for p in loaded.model.get_submodule(name).parameters())
    model = build_classifier(loaded, Hyperparameters(rank=3), 0, AmpPolicy("fp32", CPU))
    assert adapter_size(loaded.model, names, 3) + head == trainable_parameters(model)
