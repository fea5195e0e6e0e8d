"""Training and predicting on texts in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trials import (
    CPU,
    FP32,
    LABELS,
    allow_meta,
    dataset,
    hyperparameters,
    loaded,
    settings,
    start,
    texts,
    trained,
)
from torch.nn import functional as F

from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.eager import EagerSteps
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.pooled import PooledSteps
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.loop.steps import make_steps
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.faster.mask import make_masks_without_waiting
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.training.scores.scores import predict_logits

COUNTS = [1, 3, 2, 1, 5, 1, 1, 2]


def chunked(typed: bool = True) -> EncodedTexts:
    """Eight texts of one to five windows."""
    windows = texts(sum(COUNTS), typed=typed)
    documents = np.concatenate([[0], np.cumsum(COUNTS)])
    return replace(windows, documents=documents, labels=windows.labels[documents[:-1]])


def one_window_each(texts: EncodedTexts) -> EncodedTexts:
    return replace(texts, documents=np.arange(len(texts) + 1))


def gradients(
    state: TrainingState, split: EncodedTexts, rows: np.ndarray, **changes: Any
) -> tuple[float, Any]:
    state.model.train()
    steps = make_steps(
        state,
        device_texts(state.model, split, CPU),
        hyperparameters(**changes.pop("chosen", {})),
        settings(**changes),
    )
    assert isinstance(steps, PooledSteps)
    loss = steps._gradients(rows)
    found = state.trained.gradients.clone()
    state.trained.zero_gradients()
    return float(loss), found


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
def test_a_loss_is_that_of_the_mean_of_all_windows(tiny_base: Callable[[str], Path], family: str) -> None:
    """Window by window, and all at once or in any micro-batch, with gradients through each of them."""
    typed, rows = family == "bert", np.array([4, 1, 0, 2])
    split = chunked(typed)
    state = start(loaded(tiny_base(family)), hyperparameters(base_dropout=0.0))
    assert split.documents is not None
    logits = []
    for row in rows:
        windows = range(split.documents[row], split.documents[row + 1])
        each = [state.model(**split.windows.batch(np.array([window]), CPU)).logits for window in windows]
        logits.append(torch.cat(each).mean(dim=0))
    loss = F.cross_entropy(torch.stack(logits), torch.from_numpy(split.labels[rows]))
    loss.backward()
    expected = state.trained.gradients.clone()
    state.trained.zero_gradients()
    assert expected.abs().max() > 1e-3
    for micro in (None, 64, 4, 2, 1):
        found, gradient = gradients(state, split, rows, micro_batch_size=micro)
        assert found == pytest.approx(loss.item(), abs=1e-5)
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)


def test_dropout_is_the_same_in_both_computations_of_a_part(tiny_base: Callable[[str], Path]) -> None:
    """A text of more windows than a micro-batch is computed twice; the second time with the first's random numbers."""
    split, rows, chosen = chunked(), np.array([4]), {"dropout": 0.3, "base_dropout": 0.3}
    state = start(loaded(tiny_base("bert")), hyperparameters(**chosen))
    windows = device_texts(state.model, split, CPU)
    state.model.train()
    torch.manual_seed(3)
    numbers = windows.windows(rows)
    parts = [state.model(**windows.batch(numbers[i : i + 2])).logits for i in (0, 2, 4)]
    loss = F.cross_entropy(torch.cat(parts).mean(dim=0)[None], torch.from_numpy(split.labels[rows]))
    loss.backward()
    expected = state.trained.gradients.clone()
    state.trained.zero_gradients()
    torch.manual_seed(3)
    found, gradient = gradients(state, split, rows, micro_batch_size=2, chosen=chosen)
    assert found == pytest.approx(loss.item(), abs=1e-6)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


def test_no_more_windows_at_once_than_a_batch_has_rows(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = chunked()
    state = start(loaded(tiny_base("bert")), hyperparameters())
    sizes: list[int] = []
    forward = PooledSteps._forward

    def noted(self: PooledSteps, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(sizes) == 9:
            raise torch.OutOfMemoryError("full")
        sizes.append(len(inputs["input_ids"]))
        return forward(self, inputs)

    monkeypatch.setattr(PooledSteps, "_forward", noted)
    gradients(state, split, np.arange(8), chosen={"batch_size": 4})
    # 1 + 3, 2 + 1, 5 = 4 + 1 computed again backwards, 1 + 1 + 2
    assert sorted(sizes) == sorted([4, 3, 4, 1, 4, 1, 4])
    sizes[:] = [0] * 9
    with pytest.raises(TrainingError, match="out of memory with a single chunk"):
        gradients(state, split, np.arange(8), chosen={"batch_size": 4})
    assert state.notes[0] == "out of memory: micro-batches of 2 chunks, gradients accumulated"


def test_a_step_does_not_wait_for_the_device(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device there is nothing to wait for: a value that is asked for raises, as does a mix of devices."""
    allow_meta(monkeypatch)
    chosen, meta = hyperparameters(dropout=0.1), torch.device("meta")
    model: Any = build_classifier(loaded(tiny_base("bert")), chosen, 0, FP32)
    make_masks_without_waiting(model.get_base_model())
    state = TrainingState.start(model.to(meta), chosen, AmpPolicy("fp32", meta))
    steps = make_steps(state, device_texts(model, chunked(), meta), chosen, settings())
    assert steps(np.arange(8), 1e-3).device == meta


def test_texts_of_one_window_each_train_as_without_chunks(tiny_base: Callable[[str], Path]) -> None:
    base, data = loaded(tiny_base("bert")), dataset()
    chunks = replace(
        data, **{name: one_window_each(getattr(data, name)) for name in ("train", "validation", "test")}
    )
    found = []
    for given, kind in ((data, EagerSteps), (chunks, PooledSteps)):
        chosen = hyperparameters(base_dropout=0.0)
        state = start(base, chosen)
        assert (
            type(make_steps(state, device_texts(state.model, given.train, CPU), chosen, settings())) is kind
        )
        evaluations = list(fine_tune(state, given, chosen, settings()))
        found.append((trained(state.model), evaluations))
    for name, weights in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], weights, atol=1e-6, rtol=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_are_the_mean_of_the_windows(tiny_base: Callable[[str], Path], precision: Any) -> None:
    split, amp = chunked(), resolve_precision(precision, CPU)
    model = build_classifier(loaded(tiny_base("bert")), hyperparameters(), 0, amp)
    windows = predict_logits(model, split.windows, amp)
    expected = [part.mean(axis=0) for part in np.split(windows, np.cumsum(COUNTS)[:-1])]
    found = predict_logits(model, split, amp)
    assert found.shape == (8, len(LABELS))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_whole_trial_in_chunks_learns(tiny_base: Callable[[str], Path]) -> None:
    data = dataset()
    documents = np.arange(0, len(data.train) + 1, 2)
    train = replace(data.train, documents=documents, labels=data.train.labels[::2])
    chosen = hyperparameters(batch_size=4)
    state = start(loaded(tiny_base("bert")), chosen)
    losses = [e.train_loss for e in fine_tune(state, replace(data, train=train), chosen, settings(epochs=6))]
    assert losses[-1] < losses[0]
    assert (FP32.name, state.step) == ("fp32", 6 * 6)
