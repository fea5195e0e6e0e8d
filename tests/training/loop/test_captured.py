"""Captured steps, with operators recorded on the CPU in the place of CUDA graphs: they are the eager ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captured_trials import (
    SHARED,
    Counting,
    assert_same,
    both,
    capturing,
    compute_as_on_a_gpu,
    equal_lengths,
    start,
)
from recorded_graphs import RecordedGraphs
from tiny_trials import CPU, dataset, hyperparameters, loaded, settings, trained

from lorasweep.training.data.batches import epoch_batches
from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.loop.captured import EAGER_STEPS, FIRST_CAPTURE
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.steps import make_steps
from lorasweep.training.model.base_model import LoadedBase


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_as_on_a_gpu(monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "rslora", "label_smoothing": 0.2},
        {"dropout": 0.3, "base_dropout": 0.1},
        {"method": "full", "learning_rate": 1e-3},  # with the model's own dropout
    ],
    ids=["lora", "rslora", "dropout", "full"],
)
def test_a_captured_trial_is_the_eager_one(bert: LoadedBase, changes: dict[str, Any]) -> None:
    graphs = RecordedGraphs()
    results = both(bert, hyperparameters(**changes), graphs)
    assert_same(*results)
    assert results[0].notes == ()
    assert not graphs.released
    # 8 epochs of 5 full batches, and few of them before the first capture.
    assert graphs.replays >= 5
    assert len(graphs.captured) > 1


def test_gradients_that_overflow_prove_nothing(bert: LoadedBase) -> None:
    """As fp16's do where the scaler tries a larger scale: just when a replay is to be proven."""

    class Loud(Counting):
        def forward(self, **inputs: torch.Tensor) -> Any:
            output = super().forward(**inputs)
            output.logits = output.logits * 64
            return output

    chosen, graphs = hyperparameters(), RecordedGraphs()
    texts = DeviceTexts(dataset().train, CPU)
    states, losses = [], []
    for captures in (graphs, None):
        state = start(bert, chosen)
        model, state.model = state.model, Loud(state.model)
        state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, growth_interval=10**6)
        steps = make_steps(state, texts, chosen, SHARED, graphs=lambda device, captures=captures: captures)
        for number, rows in enumerate(equal_lengths(*[12] * 9)(0)):
            if number == EAGER_STEPS:
                state.scaler.update(2.0**127)
            losses.append(steps(rows, 1e-3))
        assert state.scaler.get_scale() < 2.0**127  # it overflowed
        assert state.notes == ()
        states.append(trained(model))
    assert graphs.replays == 6
    torch.testing.assert_close(losses[:9], losses[9:], rtol=1e-4, atol=1e-5)
    for name, weight in states[1].items():
        torch.testing.assert_close(states[0][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_shapes_are_captured_once_they_have_repeated_the_largest_first(bert: LoadedBase) -> None:
    chosen, shared = hyperparameters(), settings(epochs=1, evaluations_per_epoch=1)
    state = start(bert, chosen)
    model = state.model = Counting(state.model)
    graphs = RecordedGraphs()
    train = DeviceTexts(dataset().train, CPU)
    steps = make_steps(state, train, chosen, shared, graphs=lambda device: graphs)
    order = equal_lengths(*[6, 16] * 2 + [9], *[6, 16] * 10, 9, 9, 9)(0)
    shapes = [train.shape(rows).length for rows in order]
    assert shapes == [*[6, 16] * 2, 9, *[6, 16] * 10, 9, 9, 9]
    before = []
    for rows in order:
        before.append(len(graphs.captured))
        steps(rows, 1e-3)
    # A shape that is not ready, 9, holds the others back until it would take too long.
    first = before.index(2) - 1
    assert first == FIRST_CAPTURE
    assert graphs.captured == [8 * 16, 8 * 6, 8 * 9]
    assert model.passes[:first] == [(8, length) for length in shapes[:first]]


def test_the_first_steps_of_a_shape_are_eager(bert: LoadedBase) -> None:
    chosen = hyperparameters()
    state = start(bert, chosen)
    graphs = RecordedGraphs()
    steps = make_steps(state, DeviceTexts(dataset().train, CPU), chosen, SHARED, graphs=lambda device: graphs)
    seen = []
    for rows in equal_lengths(*[12] * 8)(0):
        steps(rows, 1e-3)
        seen.append(graphs.replays)
    assert seen == [0] * EAGER_STEPS + [1, 2, 3, 4, 5]


def test_short_batches_stay_eager(bert: LoadedBase) -> None:
    chosen = hyperparameters()
    state = start(bert, chosen)
    graphs = RecordedGraphs()
    steps = make_steps(state, DeviceTexts(dataset().train, CPU), chosen, SHARED, graphs=lambda device: graphs)
    for _ in range(6):
        steps(np.arange(5), 1e-3)
    assert graphs.captured == []


def test_a_checkpoint_in_between(bert: LoadedBase, tmp_path: Path) -> None:
    chosen = hyperparameters(dropout=0.2)
    whole = start(bert, chosen)
    expected = list(fine_tune(whole, dataset(), chosen, SHARED, steps=capturing(RecordedGraphs())))
    first = start(bert, chosen)
    loop = fine_tune(first, dataset(), chosen, SHARED, steps=capturing(RecordedGraphs()))
    figures = [next(loop) for _ in range(7)]
    first.save(tmp_path)
    loop.close()
    again, graphs = start(bert, chosen), RecordedGraphs()
    again.load(tmp_path)
    figures += list(fine_tune(again, dataset(), chosen, SHARED, steps=capturing(graphs)))
    assert graphs.replays == 0  # three epochs are left, and the first capture waits for longer
    assert_same(again, figures, whole, expected)


def test_batches_repeat_their_shapes() -> None:
    """What the tests above stand on."""
    train = dataset().train
    texts = DeviceTexts(train, CPU)
    seen = [texts.shape(rows) for epoch in range(8) for rows in epoch_batches(train.lengths, 8, 0, epoch)]
    assert sum(shape.rows == 8 for shape in seen) == 40
