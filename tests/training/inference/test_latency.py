"""Timed predictions: of as many texts as asked for, and of whole texts where they are read in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_trials import FP32, dataset, loaded
from torch import nn

from lorasweep.training.inference.latency import prediction_times
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.settings import Hyperparameters


@pytest.fixture
def model(tiny_base: Callable[[str], Path]) -> nn.Module:
    lora = Hyperparameters(rank=2, alpha=4, target_modules="query-value")
    return build_classifier(loaded(tiny_base("bert")), lora, 0, FP32)


@pytest.fixture
def calls(model: nn.Module) -> list[int]:
    """How many texts, or chunks, each forward pass has."""
    found: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: found.append(len(output.logits)))
    return found


def test_every_batch_has_as_many_texts_as_asked_for(model: nn.Module, calls: list[int]) -> None:
    times = prediction_times(model, dataset(40).train, FP32, batch=8, repeats=6)
    assert (times > 0).tolist() == [True] * 6
    assert calls == [8] * 11
    calls.clear()
    prediction_times(model, dataset(40).train, FP32, batch=1000, repeats=1)
    assert set(calls) == {len(dataset(40).train)}


def test_texts_in_chunks_are_read_whole_some_at_once(model: nn.Module, calls: list[int]) -> None:
    split = replace(dataset(160).train, documents=np.arange(0, 161, 4), labels=dataset(160).train.labels[::4])
    prediction_times(model, split, FP32, batch=10, repeats=1)
    prediction_times(model, split, FP32, batch=1, repeats=1)
    assert calls == [32, 8] * 6 + [4] * 6
