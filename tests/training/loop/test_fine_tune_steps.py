"""The loop's steps: accumulated gradients, clipping, memory that runs out, divergence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trials import (
    CPU,
    RecordingAdamW,
    dataset,
    hyperparameters,
    loaded,
    recording,
    settings,
    start,
    trained,
)
from torch import nn
from torch.nn import functional as F

from lorasweep.training.data.batches import epoch_batches
from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.fine_tune import Schedule, fine_tune
from lorasweep.training.model.base_model import LoadedBase


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


class LittleMemory(nn.Module):
    """A model on a device that holds no more than `most` rows of a training step."""

    def __init__(self, inner: nn.Module, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.inner, self.most, self.error = inner, most, error or torch.OutOfMemoryError("out of memory")
        self.rows: list[int] = []

    def forward(self, **inputs: torch.Tensor) -> Any:
        output = self.inner(**inputs)
        if self.training:
            if len(inputs["input_ids"]) > self.most:
                raise self.error
            self.rows.append(len(inputs["input_ids"]))
        return output


class TestAccumulation:
    @pytest.mark.parametrize("micro", [None, 8, 3, 1])
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_gradients_are_those_of_the_whole_batch(
        self, bert: LoadedBase, micro: int | None, weighted: bool, smoothing: float
    ) -> None:
        data = dataset()
        chosen = hyperparameters(
            method="full", base_dropout=0.0, label_smoothing=smoothing, max_grad_norm=1e9, learning_rate=1e-3
        )
        state = start(bert, chosen)
        rows = epoch_batches(data.train.lengths, 8, 0, 0)[0]
        reference = start(bert, chosen).model
        loss = F.cross_entropy(
            reference(**data.train.batch(rows, CPU)).logits,
            torch.from_numpy(data.train.labels[rows]),
            torch.from_numpy(data.class_weights()) if weighted else None,
            label_smoothing=smoothing,
        )
        loss.backward()
        expected = {name: p.grad for name, p in reference.named_parameters()}
        optimizer = recording(state)
        names = {id(p): name for name, p in state.model.named_parameters()}
        order = [names[id(p)] for p in state.trained.parameters]
        shared = settings(epochs=1, evaluations_per_epoch=6, micro_batch_size=micro, class_weights=weighted)
        first = next(fine_tune(state, data, chosen, shared))
        assert first.step == 1
        assert first.train_loss == pytest.approx(loss.item(), rel=1e-5)
        assert order
        for name, gradient in zip(order, optimizer.gradients[0], strict=True):
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)

    def test_clipping_shortens_long_gradients_only(self, bert: LoadedBase) -> None:
        def first_gradients(limit: float) -> torch.Tensor:
            chosen = hyperparameters(max_grad_norm=limit)
            state = start(bert, chosen)
            optimizer = recording(state)
            next(fine_tune(state, dataset(), chosen, settings(evaluations_per_epoch=6)))
            return torch.cat([gradient.flatten() for gradient in optimizer.gradients[0]])

        free = first_gradients(1e9)
        assert free.norm() > 0.1
        clipped = first_gradients(0.01)
        assert clipped.norm().item() == pytest.approx(0.01, rel=1e-3)
        torch.testing.assert_close(clipped, free * (0.01 / free.norm()), rtol=1e-3, atol=1e-8)
        assert torch.equal(first_gradients(float(free.norm()) * 2), free)


class TestMemory:
    def test_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(
        self, bert: LoadedBase, tmp_path: Path
    ) -> None:
        data, chosen, shared = dataset(), hyperparameters(), settings(class_weights=True)
        plain = start(bert, chosen)
        expected = list(fine_tune(plain, data, chosen, shared))

        small = start(bert, chosen)
        inner = small.model
        model = small.model = LittleMemory(inner, most=3)
        figures = list(fine_tune(small, data, chosen, shared))
        assert small.micro_batch_size == 2
        assert max(model.rows) == 2
        assert sum(model.rows) == 2 * len(data.train)
        for one, other in zip(figures, expected, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
            np.testing.assert_allclose(one.logits, other.logits, rtol=1e-3, atol=1e-4)
        for name, weight in trained(inner).items():
            torch.testing.assert_close(weight, trained(plain.model)[name], rtol=1e-3, atol=1e-5, msg=name)

        small.model = inner
        small.save(tmp_path)
        again = start(bert, chosen)
        again.load(tmp_path)
        assert again.micro_batch_size == 2

    def test_gradients_from_before_memory_ran_out_are_dropped(self, bert: LoadedBase) -> None:
        class FullOnce(LittleMemory):
            """No memory in the second micro-batch, when the first has left its gradients."""

            def forward(self, **inputs: torch.Tensor) -> Any:
                calls = self.calls = getattr(self, "calls", 0) + 1
                self.most = 0 if calls == 2 else 8
                return super().forward(**inputs)

        chosen, shared = hyperparameters(), settings(evaluations_per_epoch=6, micro_batch_size=4)
        plain, full = start(bert, chosen), start(bert, chosen)
        expected, found = recording(plain), recording(full)
        full.model = FullOnce(full.model, most=8)
        next(fine_tune(plain, dataset(), chosen, shared))
        next(fine_tune(full, dataset(), chosen, shared))
        assert full.model.rows == [4, 2, 2, 2, 2]
        for one, other in zip(found.gradients[0], expected.gradients[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)

    def test_a_single_row_that_does_not_fit_fails_clearly(self, bert: LoadedBase) -> None:
        chosen = hyperparameters()
        state = start(bert, chosen)
        state.model = LittleMemory(state.model, most=0)
        with pytest.raises(TrainingError, match=r"out of memory with a single row.*max_length"):
            next(fine_tune(state, dataset(), chosen, settings()))

    def test_the_cpu_allocator_counts_as_out_of_memory(self, bert: LoadedBase) -> None:
        chosen = hyperparameters()
        state = start(bert, chosen)
        error = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …")
        state.model = LittleMemory(state.model, most=4, error=error)
        next(fine_tune(state, dataset(), chosen, settings()))
        assert state.micro_batch_size == 4

    def test_other_errors_keep_their_traceback(self, bert: LoadedBase) -> None:
        chosen = hyperparameters()
        state = start(bert, chosen)
        state.model = LittleMemory(state.model, most=4, error=RuntimeError("shapes do not match"))
        with pytest.raises(RuntimeError, match="shapes do not match"):
            next(fine_tune(state, dataset(), chosen, settings()))


class TestDivergence:
    def test_a_loss_that_is_not_finite_names_step_and_rate(self, bert: LoadedBase) -> None:
        chosen = hyperparameters()
        state = start(bert, chosen)
        loop = fine_tune(state, dataset(), chosen, settings())
        assert next(loop).step == 3
        with torch.no_grad():
            next(p for p in state.model.parameters() if p.requires_grad).fill_(torch.nan)
        rate = Schedule.of(44, chosen, settings()).rate_factor(3) * 5e-3
        with pytest.raises(
            TrainingError, match=rf"not finite \(nan\) at step 4, learning rate {rate:.2g}, fp32"
        ):
            next(loop)

    def test_a_rate_far_too_high_is_caught(self, bert: LoadedBase) -> None:
        chosen = hyperparameters(learning_rate=1.0, rank=1, alpha=1e19)
        with pytest.raises(TrainingError, match="not finite"):
            list(fine_tune(start(bert, chosen), dataset(), chosen, settings(epochs=10)))

    def test_a_last_step_that_breaks_the_weights_is_caught_by_the_evaluation(self, bert: LoadedBase) -> None:
        class Breaks(RecordingAdamW):
            def step(self, closure: Any = None) -> None:  # type: ignore[override]
                super().step(closure)
                if len(self.rates) == 3:
                    with torch.no_grad():
                        self.param_groups[0]["params"][0].fill_(torch.inf)

        chosen = hyperparameters()
        state = start(bert, chosen)
        state.optimizer = Breaks(state)
        with pytest.raises(TrainingError, match="at step 3"):
            next(fine_tune(state, dataset(), chosen, settings()))
