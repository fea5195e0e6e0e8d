"""Which steps are captured, by device, trial and model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from captured_trials import SHARED, compute_as_on_a_gpu, equal_lengths, start
from recorded_graphs import RecordedGraphs
from tiny_trials import CPU, dataset, hyperparameters, loaded, settings

from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.loop.captured import CapturedSteps
from lorasweep.training.loop.eager import EagerSteps
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.loop.steps import make_steps
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Precision


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

    @pytest.mark.parametrize(
        ("family", "captured"), [("deberta-v2", False), ("t5", False), ("modernbert", True)]
    )
    def test_by_the_model(self, tiny_base: Callable[[str], Path], family: str, captured: bool) -> None:
        chosen = hyperparameters()
        state = start(loaded(tiny_base(family)), chosen)
        texts = DeviceTexts(dataset().train, CPU)
        steps = make_steps(state, texts, chosen, settings(), graphs=lambda device: RecordedGraphs())
        assert isinstance(steps, CapturedSteps) is captured


@pytest.mark.parametrize(
    "family",
    [
        "roberta",
        "electra",
        "distilbert",
        "modernbert",
        "mpnet",
        "albert",
        "llama",
        "qwen3",
        "gemma2",
        "gemma3_text",
        "opt",
        "gpt_neox",
        "gpt2",
    ],
)
def test_nothing_in_the_model_families_keeps_a_step_from_being_captured(
    tiny_base: Callable[[str], Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_as_on_a_gpu(monkeypatch)
    chosen, graphs = hyperparameters(), RecordedGraphs()
    state = start(loaded(tiny_base(family)), chosen)
    texts = DeviceTexts(dataset(typed=family == "electra").train, CPU)
    steps = make_steps(state, texts, chosen, settings(), graphs=lambda device: graphs)
    for rows in equal_lengths(*[12] * 5)(0):
        steps(rows, 1e-3)
    assert state.notes == ()
    assert graphs.replays == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3}, {"method": "full", "learning_rate": 1e-3}])
def test_a_gpu_captures_and_trains_the_same(
    tiny_base: Callable[[str], Path], precision: Precision, changes: dict[str, Any]
) -> None:
    chosen, amp = hyperparameters(**changes), AmpPolicy(precision, torch.device("cuda", 0))
    shared = settings(epochs=8, evaluations_per_epoch=1)
    losses = []
    for steps in (make_steps, partial(make_steps, graphs=lambda device: None)):
        model = build_classifier(loaded(tiny_base("bert")), chosen, 0, amp)
        state = TrainingState.start(model, chosen, amp)
        losses.append([e.train_loss for e in fine_tune(state, dataset(), chosen, shared, steps=steps)])
        assert state.notes == ()
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if precision == "fp32" else 0.05)
