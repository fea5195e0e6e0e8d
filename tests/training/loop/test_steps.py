"""Which steps are captured, by device, trial and model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from captured_trials import (
    SHARED,
    start,
)
from recorded_graphs import RecordedGraphs
from tiny_trials import CPU, dataset, hyperparameters, loaded, settings

from lorasweep.training.data.batches import DeviceTexts
from lorasweep.training.loop.captured import CapturedSteps
from lorasweep.training.loop.eager import EagerSteps
from lorasweep.training.loop.steps import make_steps
from lorasweep.training.model.base_model import LoadedBase


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


class TestChoice:
    def test_there_is_nothing_to_capture_on_a_cpu(self, bert: LoadedBase) -> None:
        chosen = hyperparameters()
        steps = make_steps(start(bert, chosen), DeviceTexts(dataset().train, CPU), chosen, SHARED)
        assert type(steps) is EagerSteps

    @pytest.mark.parametrize(
        ("method", "micro", "reached", "captured"),
        [
            ("lora", None, None, True),
            ("rslora", None, None, True),
            ("full", None, None, True),
            ("dora", None, None, False),
            ("lora", 4, None, False),
            ("lora", None, 4, False),
        ],
    )
    def test_by_the_trial(
        self, bert: LoadedBase, method: str, micro: int | None, reached: int | None, captured: bool
    ) -> None:
        chosen, shared = hyperparameters(method=method), settings(micro_batch_size=micro)
        state = start(bert, chosen)
        state.micro_batch_size = reached
        texts = DeviceTexts(dataset().train, CPU)
        steps = make_steps(state, texts, chosen, shared, graphs=lambda device: RecordedGraphs())
        assert type(steps) is (CapturedSteps if captured else EagerSteps)

    @pytest.mark.parametrize(("family", "captured"), [("deberta-v2", False), ("modernbert", True)])
    def test_by_the_model(self, tiny_base: Callable[[str], Path], family: str, captured: bool) -> None:
        chosen = hyperparameters()
        state = start(loaded(tiny_base(family)), chosen)
        texts = DeviceTexts(dataset().train, CPU)
        steps = make_steps(state, texts, chosen, settings(), graphs=lambda device: RecordedGraphs())
        assert isinstance(steps, CapturedSteps) is captured
