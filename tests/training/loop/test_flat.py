"""Flat training against its plain form, and the buffers themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.lora import Linear
from tiny_trials import CPU, dataset, hyperparameters, loaded, same, start, trained
from torch import nn
from torch.nn import functional as F

from lorasweep.training.loop.flat import ALIGNMENT, FlatParameters
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier, load_weights, merge_adapter, save_weights
from lorasweep.training.model.faster.lora_linear import LeanLinear
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Hyperparameters

METHODS = ("lora", "rslora", "dora", "full")
BF16 = AmpPolicy("bf16", CPU)
MAX_NORM, STEPS = 0.5, 6


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy with PEFT's own layers, whose parameters autograd and AdamW treat one by one."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if type(module) is LeanLinear:
            module.__class__ = Linear
    return plain


def plain_adamw(model: nn.Module, chosen: Hyperparameters) -> torch.optim.AdamW:
    """As every trial had it before its parameters were flat."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": chosen.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=chosen.learning_rate, fused=True)


def backward(model: nn.Module, step: int, micro: int, amp: AmpPolicy | None = None) -> None:
    """Accumulate the gradients of a batch of 8 rows, `micro` rows at a time."""
    texts = dataset().train
    rows = np.arange(8) + 5 * step
    for part in np.split(rows, range(micro, len(rows), micro)):
        with (amp or AmpPolicy("fp32", CPU)).autocast():
            logits = model(**texts.batch(part, CPU)).logits
        F.cross_entropy(logits, torch.from_numpy(texts.labels[part]), reduction="sum").div(8).backward()


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    # Softmax does not see a key's bias: its gradient is rounding alone, and AdamW follows its sign.
    names = [name for name in left if not name.endswith("key.bias")]
    return float(torch.stack([(left[name] - right[name]).double().norm() for name in names]).norm())


@pytest.mark.parametrize("micro", [8, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("method", METHODS)
def test_equal_to_the_plain_form(
    bert: LoadedBase, method: str, dtype: torch.dtype, tolerance: float, micro: int
) -> None:
    """AdamW for each tensor, `clip_grad_norm_` and PEFT's layers: the same weights after some steps."""
    chosen = hyperparameters(method=method, base_dropout=0.0, weight_decay=0.1, learning_rate=1e-3)
    amp = AmpPolicy("fp32", CPU)
    model = build_classifier(bert, chosen, 0, amp).to(dtype)
    plain, before = plain_copy(model), trained(model)
    state, optimizer = TrainingState.start(model, chosen, amp), plain_adamw(plain, chosen)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    clipped = 0
    for step in range(STEPS):
        rate = 1e-3 * (step + 1) / STEPS
        backward(plain, step, 8)
        backward(model, step, micro)
        clipped += float(nn.utils.clip_grad_norm_(parameters, MAX_NORM)) > MAX_NORM
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        state.apply_gradients(MAX_NORM, rate)
    assert clipped
    moved = distance(trained(plain), before)
    assert moved > 1e-3
    assert distance(trained(plain), trained(model)) <= tolerance * moved


def test_gradient_and_gaps_are_zero_after_a_step(bert: LoadedBase) -> None:
    state = start(bert, hyperparameters(weight_decay=0.5))
    backward(state.model, 0, 8)
    assert state.trained.gradients.count_nonzero() > 0
    state.apply_gradients(1.0, 1e-2)
    assert not state.trained.gradients.any()
    flat = state.trained
    for buffer in (flat.values, *flat.moments.values()):
        inside = sum(int(view.count_nonzero()) for view in flat.views(buffer))
        assert inside == int(buffer.count_nonzero()) > 0
    for view in flat.views(flat.values):
        assert view.storage_offset() % ALIGNMENT == 0


@pytest.mark.parametrize("method", METHODS)
def test_parameters_and_gradients_are_views(bert: LoadedBase, method: str) -> None:
    state = start(bert, hyperparameters(method=method))
    ours = [p for p in state.model.parameters() if p.requires_grad]
    assert {id(p) for p in state.trained.parameters} == {id(p) for p in ours}
    backward(state.model, 0, 4)
    state.trained.values.fill_(0.25)
    state.trained.gradients.fill_(0.5)
    for parameter in ours:
        assert (parameter == 0.25).all()
        assert parameter.grad is not None
        assert (parameter.grad == 0.5).all()


def test_matrices_come_first(bert: LoadedBase) -> None:
    state = start(bert, hyperparameters(method="full"))
    dimensions = [p.dim() >= 2 for p in state.trained.parameters]
    assert dimensions == sorted(dimensions, reverse=True)
    assert set(dimensions) == {True, False}


def test_a_long_gradient_is_measured_exactly() -> None:
    """Torch alone sums its squares in fp32."""
    parameter = nn.Parameter(torch.zeros(3, 1 << 21))
    flat = FlatParameters([parameter])
    flat.gradients[: parameter.numel()] = 0.1
    flat.clip_gradients(1.0)
    norm = flat.gradients.double().norm().item()
    assert norm == pytest.approx(1.0, rel=1e-5)


def test_matrices_alone_and_vectors_alone() -> None:
    for shape in ((3, 4), (5,)):
        parameter = nn.Parameter(torch.ones(shape))
        flat = FlatParameters([parameter])
        optimizer = flat.adamw(0.1, weight_decay=0.5)
        (parameter * 0).sum().backward()
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.full(shape, 0.95 if len(shape) == 2 else 1.0))
        assert set(flat.optimizer_tensors()) == {
            f"adamw.0.{name}" for name in ("step", "exp_avg", "exp_avg_sq")
        }


def test_a_lost_gradient_is_given_back(bert: LoadedBase) -> None:
    state = start(bert, hyperparameters())
    state.model.zero_grad(set_to_none=True)
    state.trained.zero_gradients()
    backward(state.model, 0, 8)
    assert state.trained.gradients.count_nonzero() > 0


def bits(model: nn.Module) -> torch.Tensor:
    """Logits in bf16's autocast: they show in which state a layer reads its matrices."""
    with torch.no_grad(), BF16.autocast():
        logits: torch.Tensor = model(**dataset().test.batch(np.arange(8), CPU)).logits
    return logits.clone()


class TestShadow:
    def test_layers_read_it(self, bert: LoadedBase) -> None:
        state = start(bert, hyperparameters(), "bf16")
        assert state.trained.shadow is not None
        before = bits(state.model)
        state.trained.shadow.fill_(0.5)
        assert not torch.equal(bits(state.model), before)

    @pytest.mark.parametrize("method", ["dora", "full"])
    def test_there_is_none_that_nobody_reads(self, bert: LoadedBase, method: str) -> None:
        assert start(bert, hyperparameters(method=method), "bf16").trained.shadow is None

    def test_it_follows_the_optimiser(self, bert: LoadedBase) -> None:
        state = start(bert, hyperparameters(), "bf16")
        before = bits(state.model)
        for step in range(3):
            backward(state.model, step, 8, BF16)
            state.apply_gradients(1.0, 1e-2)
        after = bits(state.model)
        assert not torch.equal(after, before)
        # The copy casts its own parameters.
        assert torch.equal(after, bits(copy.deepcopy(state.model)))

    def test_a_change_from_outside_is_seen(self, bert: LoadedBase) -> None:
        state = start(bert, hyperparameters(), "bf16")
        for name, parameter in state.model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.2)
        changed = bits(state.model)
        assert torch.equal(changed, bits(copy.deepcopy(state.model)))
        state.trained.refresh_shadow()
        assert torch.equal(bits(state.model), changed)

    def test_bf16_learns_as_its_plain_form_does(self, bert: LoadedBase) -> None:
        """Without the buffers the lean layers take autograd's way, and cast A and B themselves."""
        chosen = hyperparameters(learning_rate=1e-3)
        state = start(bert, chosen, "bf16")
        plain, before = copy.deepcopy(state.model), trained(state.model)
        optimizer = plain_adamw(plain, chosen)
        for step in range(STEPS):
            backward(plain, step, 8, BF16)
            backward(state.model, step, 8, BF16)
            nn.utils.clip_grad_norm_([p for p in plain.parameters() if p.requires_grad], MAX_NORM)
            optimizer.step()
            optimizer.zero_grad()
            state.apply_gradients(MAX_NORM, 1e-3)
        # A weight whose gradient is all rounding may step the other way.
        assert distance(trained(plain), trained(state.model)) <= 0.1 * distance(trained(plain), before)


class TestCopies:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_copy_has_no_part_in_the_buffers(self, bert: LoadedBase, method: str) -> None:
        state = start(bert, hyperparameters(method=method, base_dropout=0.0), "bf16")
        backward(state.model, 0, 8, BF16)
        state.apply_gradients(1.0, 1e-2)
        twin = copy.deepcopy(state.model)
        assert torch.equal(bits(twin), bits(state.model))
        before = trained(state.model)
        with torch.no_grad():
            for parameter in twin.parameters():
                if parameter.requires_grad:
                    parameter.zero_()
        backward(twin, 0, 8, BF16)
        assert same(trained(state.model), before)
        assert not state.trained.gradients.any()
        assert not torch.equal(bits(twin), bits(state.model))

    def test_a_model_in_training_can_be_merged(self, bert: LoadedBase) -> None:
        state = start(bert, hyperparameters(learning_rate=0.01))
        for step in range(3):
            backward(state.model, step, 8)
            state.apply_gradients(1.0, 1e-2)
        inputs = dataset().test.batch(np.arange(8), CPU)
        with torch.no_grad():
            expected = state.model(**inputs).logits
            merged = merge_adapter(copy.deepcopy(state.model))
            torch.testing.assert_close(merged(**inputs).logits, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("method", METHODS)
    def test_weights_are_loaded_into_the_buffer(self, bert: LoadedBase, tmp_path: Path, method: str) -> None:
        first, second = (start(bert, hyperparameters(method=method), seed=seed) for seed in (0, 1))
        backward(first.model, 0, 8)
        first.apply_gradients(1.0, 1e-2)
        save_weights(first.model, tmp_path)
        assert not torch.equal(second.trained.values, first.trained.values)
        load_weights(second.model, tmp_path)
        assert torch.equal(second.trained.values, first.trained.values)


def test_two_sets_of_parameters_do_not_meet() -> None:
    """As of two adapters that are trained in one step."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    flats = [FlatParameters(module.parameters()) for module in (first, second)]
    optimizers = [flat.adamw(0.1, 0.0) for flat in flats]
    before = flats[1].values.clone()
    second(first(torch.ones(2, 4))).sum().backward()
    assert all(flat.gradients.any() for flat in flats)
    optimizers[0].step()
    flats[0].zero_gradients()
    assert flats[1].gradients.any()
    assert torch.equal(flats[1].values, before)
