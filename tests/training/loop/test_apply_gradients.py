"""An optimiser step of a trial: the gradient scaler, the learning rate, no wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_trials import CPU, copies, dataset, hyperparameters, loaded, same, start, trained
from torch import nn

from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Precision


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


class TestGradientScaler:
    """The scaler of fp16, which runs on a CPU too."""

    FP16 = AmpPolicy("fp16", CPU)

    def state(self, bert: LoadedBase, amp: AmpPolicy) -> TrainingState:
        chosen = hyperparameters()
        return TrainingState.start(build_classifier(bert, chosen, 0, amp), chosen, amp)

    def step(self, state: TrainingState, rate: float = 1e-2) -> None:
        with state.amp.autocast():
            logits = state.model(**dataset().train.batch(np.arange(8), CPU)).logits
        state.scaler.scale(logits.float().square().mean()).backward()
        state.apply_gradients(1.0, rate)

    def test_its_state_comes_back(self, bert: LoadedBase, tmp_path: Path) -> None:
        state = self.state(bert, self.FP16)
        self.step(state)
        state.scaler.update(new_scale=512.0)
        state.save(tmp_path)
        again = self.state(bert, self.FP16)
        again.load(tmp_path)
        assert again.scaler.state_dict() == state.scaler.state_dict()
        assert again.scaler.get_scale() == 512.0

    @pytest.mark.parametrize("other", ["bf16", "fp32"])
    def test_a_trial_goes_on_in_fp16_or_leaves_it(
        self, bert: LoadedBase, tmp_path: Path, other: Precision
    ) -> None:
        for before, after in ((AmpPolicy(other, CPU), self.FP16), (self.FP16, AmpPolicy(other, CPU))):
            state = self.state(bert, before)
            self.step(state)
            state.save(tmp_path / before.name)
            again = self.state(bert, after)
            again.load(tmp_path / before.name)
            assert same(trained(again.model), trained(state.model))
            for _ in range(4):  # the first scale may be too high
                self.step(again)
            assert not same(trained(again.model), trained(state.model))

    def test_an_overflow_skips_the_step(self, bert: LoadedBase) -> None:
        state = self.state(bert, self.FP16)
        for _ in range(4):
            self.step(state)
        before = copies(state.model)
        tensors = {name: tensor.clone() for name, tensor in state.trained.optimizer_tensors().items()}
        scale = state.scaler.get_scale()
        state.scaler.scale(torch.zeros(()))
        state.trained.gradients[3] = torch.inf
        state.apply_gradients(1.0, 1e-2)
        assert same(copies(state.model), before)
        assert same(state.trained.optimizer_tensors(), tensors)
        assert not state.trained.gradients.any()
        assert state.scaler.get_scale() == scale / 2

    def test_clipping_sees_the_true_gradient(self, bert: LoadedBase) -> None:
        plain, scaled = start(bert, hyperparameters()), self.state(bert, self.FP16)
        factor = float(scaled.scaler.scale(torch.ones(())))
        for state, by in ((plain, 1.0), (scaled, factor)):
            torch.manual_seed(0)
            for gradient in state.trained.views(state.trained.gradients):
                gradient.copy_(torch.randn(gradient.shape) * by)
            state.apply_gradients(0.1, 1e-2)
        for one, other in zip(
            plain.trained.optimizer_tensors().values(),
            scaled.trained.optimizer_tensors().values(),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=0)


def test_a_step_does_not_wait_for_the_device() -> None:
    """On the meta device, where a look at a value or a mix of devices raises."""
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).to("meta")
    state = TrainingState.start(model, hyperparameters(), AmpPolicy("bf16", torch.device("meta")))
    model(torch.ones(2, 8, device="meta")).sum().backward()
    state.apply_gradients(1.0, 1e-3)
