"""Eager steps: they wait for nothing, and end in one line where memory is too small for any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trials import CPU, dataset, hyperparameters, loaded, settings, start
from torch import nn

from lorasweep.training.data.device_texts import DeviceTexts
from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.eager import EagerSteps
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.out_of_memory import no_memory_for
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.faster.mask import make_masks_without_waiting
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy

META = torch.device("meta")
# What torch, CUDA and cuBLAS say when there is no memory.
FORMS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    torch.AcceleratorError("CUDA error: out of memory\nmore", 2)
    if hasattr(torch, "AcceleratorError")
    else RuntimeError("CUDA error: out of memory\nmore"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
]


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "full"])
@pytest.mark.parametrize("micro", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_does_not_wait_for_the_device(
    bert: LoadedBase, method: str, micro: int | None, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device there is nothing to wait for: a value that is asked for raises, as does a mix of devices."""
    # Autocast does not know this device.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    monkeypatch.setattr(torch, "autocast", lambda kind, enabled: nullcontext())
    chosen, amp = hyperparameters(method=method, dropout=0.1), AmpPolicy("fp32", META)
    model: Any = build_classifier(bert, chosen, 0, AmpPolicy("fp32", CPU))
    make_masks_without_waiting(model if method == "full" else model.get_base_model())
    state = TrainingState.start(model.to(META), chosen, amp)
    data = dataset()
    texts = device_texts(model, data.train, META)
    weights = torch.from_numpy(data.class_weights()).to(META) if weighted else None
    steps = EagerSteps(state, texts, chosen, settings(micro_batch_size=micro), weights)
    for rows in (np.arange(8), np.arange(8, 12)):
        loss = steps(rows, 1e-3)
        assert loss.shape == ()
        assert loss.device == META


class TestMemory:
    @pytest.mark.parametrize("error", FORMS, ids=lambda error: str(error)[:20])
    def test_every_form_of_it_halves_the_rows(self, bert: LoadedBase, error: Exception) -> None:
        class Little(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, **inputs: torch.Tensor) -> Any:
                if self.training and len(inputs["input_ids"]) > 2:
                    raise error
                return self.inner(**inputs)

        chosen = hyperparameters()
        state = start(bert, chosen)
        state.model = Little(state.model)
        next(fine_tune(state, dataset(), chosen, settings()))
        assert state.micro_batch_size == 2
        assert state.notes == tuple(
            f"out of memory: micro-batches of {rows} rows, gradients accumulated" for rows in (4, 2)
        )

    @pytest.mark.parametrize("error", FORMS, ids=lambda error: str(error)[:20])
    def test_none_for_the_optimiser_is_one_line(
        self, bert: LoadedBase, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fewer rows would not help."""
        chosen = hyperparameters()
        state = start(bert, chosen)

        def step(closure: Any = None) -> None:
            raise error

        monkeypatch.setattr(state.optimizer, "step", step)
        with pytest.raises(TrainingError, match=r"^out of memory for the optimiser's .*: .*lower") as caught:
            next(fine_tune(state, dataset(), chosen, settings()))
        assert "\n" not in str(caught.value)
        assert state.micro_batch_size is None

    def test_other_errors_and_our_own_pass(self) -> None:
        for error in (RuntimeError("shapes do not match"), TrainingError("said already")):
            with pytest.raises(type(error), match=str(error)), no_memory_for("it"):
                raise error

    def test_gradients_are_zero_between_steps(self, bert: LoadedBase) -> None:
        chosen = hyperparameters()
        state = start(bert, chosen)
        steps = EagerSteps(state, DeviceTexts(dataset().train, CPU), chosen, settings())
        steps(np.arange(8), 1e-3)
        assert not state.trained.gradients.any()
