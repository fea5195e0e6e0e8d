"""Captured steps that go wrong: the trial goes on with eager ones, and loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from captured_trials import (
    SHARED,
    Counting,
    assert_same,
    both,
    compute_as_on_a_gpu,
    equal_lengths,
    start,
)
from recorded_graphs import RecordedGraphs
from tiny_trials import CPU, dataset, hyperparameters, loaded, trained

from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.loop.eager import EagerSteps
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.loop.steps import make_steps
from lorasweep.training.model.base_model import LoadedBase


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_as_on_a_gpu(monkeypatch)


@pytest.mark.parametrize("at", ["warm_up", "capture", "replay", "later replay"])
def test_any_error_and_the_trial_goes_on_eagerly_with_one_line(bert: LoadedBase, at: str) -> None:
    class Broken(RecordedGraphs):
        def warm_up(self, function: Callable[[], None]) -> None:
            super().warm_up(function)  # leaves gradients behind
            if at == "warm_up":
                raise RuntimeError("a wait\nmore")

        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            if at == "capture" and self.captured:
                raise RuntimeError("a wait\nmore")
            replay = super().capture(function)
            return unready if at == "replay" else replay

    def unready() -> None:
        raise RuntimeError("a wait\nmore")

    def spoil() -> None:
        if at == "later replay" and graphs.replays > 9:
            states[0].trained.gradients.fill_(9)
            raise RuntimeError("a wait\nmore")

    states: list[TrainingState] = []
    graphs = Broken(spoil)
    # A replay that draws random numbers before it fails cannot be repeated.
    chosen = hyperparameters(dropout=0.0 if at == "later replay" else 0.2)
    results = both(bert, chosen, graphs, prepare=states.append)
    assert results[0].notes == ("steps were not captured as CUDA graphs, which is slower: a wait",)
    assert graphs.released
    assert_same(*results)


def test_what_was_captured_before_an_error_is_not_used(bert: LoadedBase) -> None:
    class One(RecordedGraphs):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            if self.captured:
                raise RuntimeError("a wait")
            return super().capture(function)

    chosen, graphs = hyperparameters(), One()
    state = start(bert, chosen)
    steps = make_steps(state, DeviceTexts(dataset().train, CPU), chosen, SHARED, graphs=lambda device: graphs)
    for rows in equal_lengths(6, 6, 6, 16, 16, 16, 16)(0):
        steps(rows, 1e-3)
    assert graphs.captured == [8 * 16]
    assert graphs.replays == 0
    assert state.notes == ("steps were not captured as CUDA graphs, which is slower: a wait",)


def test_a_replay_that_differs_is_not_used(bert: LoadedBase) -> None:
    """Another gradient, or another loss."""
    states: list[TrainingState] = []

    def spoil() -> None:
        gradient = next(p.grad for p in states[0].model.parameters() if p.grad is not None)
        gradient.mul_(0.5)

    graphs = RecordedGraphs(spoil)
    results = both(bert, hyperparameters(), graphs, prepare=states.append)
    assert_same(*results)
    (note,) = results[0].notes
    assert "a replay's gradients differ from those of the step itself by" in note
    assert graphs.replays == 1
    assert graphs.released


def test_what_is_decided_on_the_host_at_the_capture_is_noticed(bert: LoadedBase) -> None:
    class Moody(Counting):
        """Half the logits in each fourth pass."""

        def forward(self, **inputs: torch.Tensor) -> Any:
            output = super().forward(**inputs)
            if len(self.passes) == 5:  # three steps, the warm-up, the capture
                output.logits = output.logits * 0.5
            return output

    def prepare(state: TrainingState) -> None:
        state.model = Moody(state.model)

    chosen = hyperparameters()
    state = start(bert, chosen)
    prepare(state)
    graphs = RecordedGraphs()
    steps = make_steps(state, DeviceTexts(dataset().train, CPU), chosen, SHARED, graphs=lambda device: graphs)
    for rows in equal_lengths(*[12] * 6)(0):
        steps(rows, 1e-3)
    assert graphs.replays == 1
    assert len(state.notes) == 1


def test_memory_that_runs_out_is_taken_from_the_graphs_first(bert: LoadedBase) -> None:
    class Full(Counting):
        """No memory beside the graphs, and for four rows without."""

        def forward(self, **inputs: torch.Tensor) -> Any:
            output = super().forward(**inputs)
            if len(inputs["input_ids"]) > (most if graphs.released else 8 if not graphs.captured else 0):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return output

    chosen = hyperparameters()
    for most in (8, 4):
        state, graphs = start(bert, chosen), RecordedGraphs()
        expected = start(bert, chosen)
        model = state.model
        state.model = Full(model)
        texts = DeviceTexts(dataset().train, CPU)
        steps = make_steps(state, texts, chosen, SHARED, graphs=lambda device: graphs)  # noqa: B023
        eager = EagerSteps(expected, texts, chosen, SHARED)
        for rows in equal_lengths(*[12] * 6)(0):
            one, two = steps(rows, 1e-3), eager(rows, 1e-3)
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
        assert state.micro_batch_size == (None if most == 8 else 4)
        assert [note.partition(":")[0] for note in state.notes] == [
            "steps were not captured as CUDA graphs, which is slower",
            "out of memory",
        ][: 1 if most == 8 else 2]
        for name, weight in trained(expected.model).items():
            torch.testing.assert_close(trained(model)[name], weight, rtol=1e-3, atol=1e-5, msg=name)
