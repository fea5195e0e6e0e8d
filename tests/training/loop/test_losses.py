"""Cross entropy and focal loss of each row, against their formulas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captured_trials import assert_same, both, compute_as_on_a_gpu
from recorded_graphs import RecordedGraphs
from tiny_trials import dataset, hyperparameters, loaded, settings, start, trained
from torch.nn import functional as F

from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.losses import RowLosses
from lorasweep.training.model.base_model import LoadedBase

LOGITS = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
TARGETS = torch.tensor([0, 1, 2, 3, 3, 0, 1])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


def by_hand(weights: torch.Tensor | None, smoothing: float, gamma: float) -> np.ndarray:
    """As written down in the two papers, row by row."""
    found = []
    for logits, label in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        shares = np.exp(logits) / np.exp(logits).sum()
        target = np.full(4, smoothing / 4)
        target[label] += 1 - smoothing
        scale = np.ones(4) if weights is None else weights.numpy()
        # torch's weights multiply each label's part of a smoothed target.
        cross_entropy = -(target * scale * np.log(shares)).sum()
        found.append((1 - shares[label]) ** gamma * cross_entropy)
    return np.array(found)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_rows_have_the_loss_of_the_formula(
    weights: torch.Tensor | None, smoothing: float, gamma: float
) -> None:
    focal = RowLosses(weights, smoothing, gamma)(LOGITS, TARGETS)
    np.testing.assert_allclose(focal.numpy(), by_hand(weights, smoothing, gamma), rtol=1e-12)
    plain = RowLosses(weights, smoothing)(LOGITS, TARGETS)
    np.testing.assert_allclose(plain.numpy(), by_hand(weights, smoothing, 0), rtol=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
def test_shares_make_the_mean_that_torch_makes(weights: torch.Tensor | None) -> None:
    losses = RowLosses(weights)
    mean = (losses(LOGITS, TARGETS) * losses.shares(TARGETS)).sum()
    assert mean.item() == pytest.approx(F.cross_entropy(LOGITS, TARGETS, weights).item())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_gradients_are_those_of_the_formula_and_finite_for_certain_rows(gamma: float) -> None:
    def focal(logits: torch.Tensor) -> torch.Tensor:
        return RowLosses(None, 0.1, gamma)(logits, TARGETS)

    assert torch.autograd.gradcheck(focal, LOGITS.clone().requires_grad_())
    certain = torch.tensor([[200.0, 0, 0, 0], [0, 60.0, 0, 0], [-200.0, 0, 0, 0]], requires_grad=True)
    loss = RowLosses(None, 0.0, gamma)(certain, torch.tensor([0, 1, 0]))
    loss.sum().backward()
    assert certain.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(certain.grad).all()


def test_a_trial_has_the_loss_of_its_hyperparameters() -> None:
    chosen = hyperparameters(loss="focal", focal_gamma=3, label_smoothing=0.1)
    assert RowLosses.of(chosen, WEIGHTS) == RowLosses(WEIGHTS, 0.1, 3)
    assert RowLosses.of(hyperparameters(focal_gamma=3), None) == RowLosses(None, 0.0, None)


FOCAL: dict[str, Any] = {"loss": "focal", "label_smoothing": 0.1}


@pytest.mark.parametrize("micro", [None, 3])
def test_the_first_loss_of_a_trial(bert: LoadedBase, micro: int | None) -> None:
    """With class weights as a hyperparameter, and for any micro-batch."""
    data, chosen = dataset(), hyperparameters(class_weights="inverse", dropout=0.0, **FOCAL)
    seen: list[np.ndarray] = []

    def batches(epoch: int) -> list[np.ndarray]:
        seen.extend([np.arange(8)] * 6)
        return seen

    model = start(bert, chosen).model
    with torch.no_grad():
        logits = model(**data.train.batch(np.arange(8), torch.device("cpu"))).logits
    losses = RowLosses(torch.from_numpy(data.class_weights()), 0.1, 2.0)
    labels = torch.from_numpy(data.train.labels[:8])
    expected = (losses(logits, labels) * losses.shares(labels)).sum().item()
    shared = settings(epochs=1, evaluations_per_epoch=6, micro_batch_size=micro)
    first = next(fine_tune(start(bert, chosen), data, chosen, shared, batches=batches))
    assert first.train_loss == pytest.approx(expected, rel=1e-5)


def test_class_weights_of_the_trial_and_of_the_sweep_are_the_same(bert: LoadedBase) -> None:
    def weights(by_trial: str, by_sweep: bool) -> dict[str, torch.Tensor]:
        chosen = hyperparameters(class_weights=by_trial)
        state = start(bert, chosen)
        next(fine_tune(state, dataset(), chosen, settings(class_weights=by_sweep)))
        return trained(state.model)

    one, other, neither = weights("inverse", False), weights("none", True), weights("none", False)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], neither[name]) for name in one)


def test_captured_steps_with_focal_loss_are_the_eager_ones(
    bert: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_as_on_a_gpu(monkeypatch)
    graphs = RecordedGraphs()
    assert_same(*both(bert, hyperparameters(**FOCAL, lora_plus_ratio=4, schedule="cosine"), graphs))
    assert graphs.replays >= 5
