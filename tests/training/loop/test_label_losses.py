"""Training on several labels a text: the loss, where the head starts, and that steps of both kinds are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import captured_trials
import numpy as np
import pytest
import torch
from captured_trials import SHARED, assert_same, both, compute_as_on_a_gpu
from recorded_graphs import RecordedGraphs
from tiny_trials import CPU, LABELS, dataset, hyperparameters, loaded, settings, start
from torch.nn import functional as F

from lorasweep.training.data.batches import balanced_rows
from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.loop import fine_tune as fine_tune_module
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.label_losses import binary_losses
from lorasweep.training.loop.losses import RowLosses
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.heads import start_at_rates
from lorasweep.training.model.precision import AmpPolicy


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


def with_sets(data: EncodedDataset, rare: float = 0.2) -> EncodedDataset:
    """The same rows with the class as one label, and others at random; every tenth row has none."""

    def sets(texts: EncodedTexts, seed: int) -> EncodedTexts:
        random = np.random.default_rng(seed)
        matrix = np.eye(len(LABELS), dtype=np.uint8)[texts.labels]
        matrix |= (random.random(matrix.shape) < rare).astype(np.uint8)
        matrix[::10] = 0
        return replace(texts, labels=matrix)

    return EncodedDataset(sets(data.train, 0), sets(data.validation, 1), sets(data.test, 2), data.label_names)


def batch(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(rows, 4, generator=generator)
    return logits, (torch.rand(rows, 4, generator=generator) < 0.4).to(torch.uint8)


class TestLoss:
    def test_it_is_transformers_own(self) -> None:
        """That of `multi_label_classification`: the mean over rows and labels."""
        logits, labels = batch()
        expected = torch.nn.BCEWithLogitsLoss()(logits, labels.float())
        losses = RowLosses()
        total = (losses(logits, labels) * losses.shares(labels)).sum()
        assert float(total) == pytest.approx(float(expected), abs=1e-6)

    def test_weights_count_the_rows_that_have_the_label(self) -> None:
        logits, labels = batch()
        weights = torch.tensor([1.0, 4.0, 0.5, 9.0])
        found = binary_losses(logits, labels, weights)
        own = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        torch.testing.assert_close(found, torch.where(labels > 0, weights, 1.0).mul(own).mean(dim=1))

    def test_smoothing_moves_targets_to_one_half(self) -> None:
        logits, labels = batch()
        found = binary_losses(logits, labels, smoothing=0.2)
        expected = 0.9 * binary_losses(logits, labels) + 0.1 * binary_losses(logits, 1 - labels)
        torch.testing.assert_close(found, expected)

    def test_focal_is_the_papers(self) -> None:
        logits, labels = batch()
        p = torch.where(labels > 0, torch.sigmoid(logits), 1 - torch.sigmoid(logits))
        torch.testing.assert_close(
            binary_losses(logits, labels, gamma=2.0), (-((1 - p) ** 2) * p.log()).mean(dim=1)
        )
        torch.testing.assert_close(binary_losses(logits, labels, gamma=0.0), binary_losses(logits, labels))

    def test_class_weights_are_what_is_missing_to_one_half(self) -> None:
        data = with_sets(dataset())
        having = data.train.labels.sum(axis=0)
        assert data.class_weights() == pytest.approx((44 - having) / having, rel=1e-6)


class TestHead:
    @pytest.mark.parametrize("method", ["lora", "full"])
    def test_it_starts_at_the_rates(self, bert: LoadedBase, method: Any) -> None:
        data = with_sets(dataset())
        state = start(bert, hyperparameters(method=method))
        assert start_at_rates(state.model, data.train.labels)
        with torch.no_grad():
            for parameter in state.model.parameters():
                if parameter.requires_grad and parameter.dim() == 2 and len(parameter) == len(LABELS):
                    parameter.zero_()
            logits = state.model.eval()(**data.train.batch(np.arange(4), CPU)).logits
        rates = (data.train.labels.sum(axis=0) + 0.5) / 45
        assert torch.sigmoid(logits)[0].numpy() == pytest.approx(rates, abs=1e-5)

    def test_weights_move_it_to_one_half(self, bert: LoadedBase) -> None:
        data = with_sets(dataset())
        state = start(bert, hyperparameters())
        start_at_rates(state.model, data.train.labels, torch.from_numpy(data.class_weights()))
        biases = [p for n, p in state.model.named_parameters() if p.requires_grad and n.endswith("bias")]
        assert biases[-1].detach().numpy() == pytest.approx(0, abs=0.05)

    def test_a_decoder_has_no_bias_to_set(self, tiny_base: Callable[[str], Path]) -> None:
        model = build_classifier(loaded(tiny_base("llama")), hyperparameters(), 0, AmpPolicy("fp32", CPU))
        assert not start_at_rates(model, with_sets(dataset()).train.labels)


def test_training_starts_at_the_rates(bert: LoadedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    data, chosen, shared = (
        with_sets(dataset(), rare=0.02),
        hyperparameters(learning_rate=1e-5),
        settings(epochs=1),
    )
    first = next(fine_tune(start(bert, chosen), data, chosen, shared))
    monkeypatch.setattr(fine_tune_module, "start_at_rates", lambda *arguments: False)
    from_zero = next(fine_tune(start(bert, chosen), data, chosen, shared))
    assert first.scores.loss < from_zero.scores.loss - 0.03


def test_what_the_texts_tell_is_learnt(bert: LoadedBase) -> None:
    """The second word names the class; who knows the rates alone has their entropy as loss."""
    data = with_sets(dataset(rows=120), rare=0.02)
    chosen = hyperparameters(learning_rate=0.01)
    *_, last = fine_tune(start(bert, chosen), data, chosen, settings(epochs=10, evaluations_per_epoch=1))
    rates = data.validation.labels.mean(axis=0)
    entropy = float(-(rates * np.log(rates) + (1 - rates) * np.log(1 - rates)).mean())
    assert last.scores.loss < 0.8 * entropy
    assert last.logits.shape == data.validation.labels.shape


@pytest.mark.parametrize(
    "changes",
    [{"label_smoothing": 0.1}, {"loss": "focal", "class_weights": "inverse"}],
    ids=["smoothed", "focal"],
)
def test_captured_steps_are_the_eager_ones(
    bert: LoadedBase, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_as_on_a_gpu(monkeypatch)
    monkeypatch.setattr(captured_trials, "dataset", lambda: with_sets(dataset()))
    graphs = RecordedGraphs()
    shared = SHARED.model_copy(update={"class_weights": False})
    results = both(bert, hyperparameters(**changes), graphs, shared)
    assert_same(*results)
    assert graphs.replays >= 5


def test_accumulated_gradients_are_those_of_the_batch(bert: LoadedBase) -> None:
    data, chosen = with_sets(dataset()), hyperparameters(class_weights="inverse")
    whole, parts = (
        list(fine_tune(start(bert, chosen), data, chosen, settings(micro_batch_size=micro)))[-1]
        for micro in (None, 3)
    )
    assert parts.logits == pytest.approx(whole.logits, abs=1e-4)


def test_balanced_rows_have_each_label_as_often() -> None:
    labels = np.zeros((1000, 3), dtype=np.uint8)
    labels[:700, 0] = labels[650:750, 1] = labels[750:760, 2] = 1
    rows = balanced_rows(labels, np.random.default_rng(0))
    assert len(rows) == 1000
    assert labels[rows, 2].sum() == pytest.approx(250, abs=1)
    assert (~labels[rows].any(axis=1)).sum() == pytest.approx(250, abs=1)
