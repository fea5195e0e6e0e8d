"""LoRA+ and the head's own rate, against PEFT's optimiser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from tiny_trials import CPU, FP32, dataset, hyperparameters, loaded, same, settings, start, trained
from torch.nn import functional as F

from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.flat import RATIO, FlatParameters
from lorasweep.training.loop.rates import rate_ratios
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


def rates(state: TrainingState) -> dict[str, float]:
    """Name → the rate that AdamW has for a parameter."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    found: dict[str, float] = {}
    for (_, numbers), group in zip(state.trained._groups(), state.optimizer.param_groups, strict=True):
        found |= {names[id(state.trained.parameters[number])]: group["lr"] for number in numbers}
    return found


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_rates_and_steps_are_those_of_pefts_optimiser(bert: LoadedBase, method: str) -> None:
    """But for the head's biases, to which PEFT gives the rate of B."""
    chosen = hyperparameters(
        method=method, lora_plus_ratio=16, head_rate_ratio=16, learning_rate=1e-3, weight_decay=0.0
    )
    state, reference = start(bert, chosen), build_classifier(bert, chosen, 0, FP32)
    optimizer: Any = create_loraplus_optimizer(
        reference,
        torch.optim.AdamW,
        lr=1e-3,
        loraplus_lr_ratio=16,
        loraplus_weight_decay=0.0,
        weight_decay=0.0,
    )
    names = {id(parameter): name for name, parameter in reference.named_parameters()}
    of_peft = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    state.apply_gradients(1e9, 1e-3)
    ours = rates(state)
    heads = {name for name in ours if "lora_" not in name}
    assert {name: ours[name] for name in ours.keys() - heads} == {
        name: rate for name, rate in of_peft.items() if name not in heads
    }
    assert {ours[name] for name in heads} == {16e-3}
    whole = [parameter for name, parameter in reference.named_parameters() if name in heads]
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if names[id(p)] not in heads]
    optimizer.add_param_group({"params": whole, "lr": 16e-3, "weight_decay": 0.0})
    state = start(bert, chosen)
    texts = dataset().train
    for step in range(3):
        rows = np.arange(8) + 8 * step
        for model in (state.model, reference):
            logits = model(**texts.batch(rows, CPU)).logits
            F.cross_entropy(logits, torch.from_numpy(texts.labels[rows])).backward()
        optimizer.step()
        optimizer.zero_grad()
        state.apply_gradients(1e9, 1e-3)
    expected, found = trained(reference), trained(state.model)
    for name, weight in expected.items():
        # Softmax does not see a key's bias, nor AdamW the size of a gradient that is rounding alone.
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_the_head_has_its_own_rate(bert: LoadedBase) -> None:
    state = start(bert, hyperparameters(head_rate_ratio=0.25, learning_rate=8e-3))
    state.apply_gradients(1.0, 4e-3)
    found = rates(state)
    assert {rate for name, rate in found.items() if "lora_" not in name} == {1e-3}
    assert {rate for name, rate in found.items() if "lora_" in name} == {4e-3}
    decays = {group["weight_decay"] for group in state.optimizer.param_groups}
    assert decays == {0.0, 0.01}


def test_full_fine_tuning_has_one_rate(bert: LoadedBase) -> None:
    state = start(bert, hyperparameters(method="full", head_rate_ratio=9, lora_plus_ratio=9))
    assert {group[RATIO] for group in state.optimizer.param_groups} == {1.0}
    assert len(state.optimizer.param_groups) == 2


def test_equal_rates_keep_the_order_of_earlier_checkpoints(bert: LoadedBase) -> None:
    """AdamW's tensors are numbered by it."""
    chosen = hyperparameters()
    state = start(bert, chosen)
    given = [p for p in state.model.parameters() if p.requires_grad]
    before = sorted(given, key=lambda parameter: parameter.dim() < 2)
    assert [id(p) for p in state.trained.parameters] == [id(p) for p in before]
    assert set(rate_ratios({"lora_A": given[0]}, chosen)) == {1.0}


def test_groups_cover_the_buffer_once() -> None:
    shapes = [(3, 4), (5,), (2, 2), (7,), (4, 4)]
    flat = FlatParameters([torch.nn.Parameter(torch.ones(shape)) for shape in shapes], ratios=[2, 1, 1, 2, 2])
    optimizer = flat.adamw(0.5, 0.1)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.5, 0.1), (1.0, 0.1), (0.5, 0.0), (1.0, 0.0),
    ]  # fmt: skip
    sizes = [group["params"][0].numel() for group in optimizer.param_groups]
    assert sum(sizes) == flat.values.numel()
    assert [p.shape for p in flat.parameters] == [(2, 2), (3, 4), (4, 4), (5,), (7,)]
    assert flat.ratios == (1, 2, 2, 1, 2)


def test_a_trial_with_ratios_goes_on_as_if_it_had_never_stopped(bert: LoadedBase, tmp_path: Path) -> None:
    chosen = hyperparameters(
        lora_plus_ratio=8, head_rate_ratio=0.5, schedule="cosine", sampling="balanced", loss="focal"
    )
    whole, cut = start(bert, chosen), start(bert, chosen)
    list(fine_tune(whole, dataset(), chosen, settings()))
    next(fine_tune(cut, dataset(), chosen, settings()))
    cut.save(tmp_path)
    again = start(bert, chosen)
    again.load(tmp_path)
    list(fine_tune(again, dataset(), chosen, settings()))
    assert same(trained(again.model), trained(whole.model))
    assert len(again.losses) == 4
