"""The loop: resumed trials, schedule and rungs, the order of the batches."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trials import (
    CPU,
    FP32,
    copies,
    dataset,
    hyperparameters,
    loaded,
    recording,
    same,
    settings,
    start,
    trained,
)
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from lorasweep.training.data.batches import epoch_batches
from lorasweep.training.loop.fine_tune import Schedule, fine_tune
from lorasweep.training.loop.state import Evaluation
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.settings import Hyperparameters


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


def key_figures(evaluation: Evaluation) -> tuple[Any, ...]:
    """Everything in an evaluation that does not depend on the clock."""
    return (
        evaluation.rung,
        evaluation.step,
        evaluation.epoch,
        evaluation.learning_rate,
        evaluation.train_loss,
        evaluation.scores,
        evaluation.logits.tobytes(),
    )


METHODS = {
    "lora": {"dropout": 0.2, "base_dropout": 0.1},
    "dora": {"dropout": 0.2},
    "full": {"learning_rate": 1e-3},  # with the model's own dropout of 0.1
}


class TestResume:
    @pytest.mark.parametrize("rung", [1, 3])
    @pytest.mark.parametrize("method", METHODS)
    def test_goes_on_as_if_never_stopped(
        self, bert: LoadedBase, tmp_path: Path, method: str, rung: int
    ) -> None:
        # 6 steps an epoch and rungs after steps 2, 3, 4, 6, 8 …: both stops lie inside the first epoch.
        data, chosen = dataset(), hyperparameters(method=method, **METHODS[method])
        shared = settings(evaluations_per_epoch=4)
        whole = start(bert, chosen)
        expected = [key_figures(evaluation) for evaluation in fine_tune(whole, data, chosen, shared)]

        first = start(bert, chosen)
        loop = fine_tune(first, data, chosen, shared)
        figures = [key_figures(next(loop)) for _ in range(rung)]
        first.save(tmp_path)
        loop.close()
        torch.rand(7)  # the world goes on and draws random numbers

        second = start(bert, chosen)
        second.load(tmp_path)
        figures += [key_figures(evaluation) for evaluation in fine_tune(second, data, chosen, shared)]
        assert figures == expected
        assert same(trained(second.model), trained(whole.model))

    def test_dropout_draws_random_numbers_in_these_trials(self, bert: LoadedBase) -> None:
        # Else the test above would not see lost random states.
        for method, entries in METHODS.items():
            model = start(bert, hyperparameters(method=method, **entries)).model
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    nn.init.ones_(weight)
            inputs = dataset().train.batch(np.arange(4), CPU)
            assert not torch.equal(model(**inputs).logits, model(**inputs).logits), method

    def test_of_a_finished_trial_yields_nothing(self, bert: LoadedBase, tmp_path: Path) -> None:
        chosen = hyperparameters()
        state = start(bert, chosen)
        assert len(list(fine_tune(state, dataset(), chosen, settings()))) == 4
        state.save(tmp_path)
        again = start(bert, chosen)
        again.load(tmp_path)
        assert list(fine_tune(again, dataset(), chosen, settings())) == []

    def test_time_is_summed_over_restarts(self, bert: LoadedBase, tmp_path: Path) -> None:
        chosen, data, shared = hyperparameters(), dataset(), settings()

        def clock() -> Callable[[], float]:
            ticks = itertools.count()
            return lambda: float(next(ticks))

        state = start(bert, chosen)
        loop = fine_tune(state, data, chosen, shared, clock=clock())
        first = next(loop)
        # The clock is read at the start, at the rung's start, after its training and at its end.
        assert first.seconds == 3
        assert first.samples_per_second == sum(
            len(rows) for rows in epoch_batches(data.train.lengths, 8, 0, 0)[:3]
        )
        state.save(tmp_path)
        again = start(bert, chosen)
        again.load(tmp_path)
        assert next(fine_tune(again, data, chosen, shared, clock=clock())).seconds == 6


class TestPlan:
    @pytest.mark.parametrize(
        ("rows", "epochs", "per_epoch", "expected"),
        [
            (44, 2, 2, (3, 6, 9, 12)),
            (44, 2, 4, (2, 3, 4, 6, 8, 9, 10, 12)),  # 1.5 steps a rung
            (40, 1, 3, (2, 3, 5)),
            (8, 1, 4, (1, 1, 1, 1)),  # fewer steps than rungs
            (8, 3, 2, (1, 1, 2, 2, 2, 3)),
        ],
    )
    def test_rungs(self, rows: int, epochs: int, per_epoch: int, expected: tuple[int, ...]) -> None:
        schedule = Schedule.of(
            rows, hyperparameters(), settings(epochs=epochs, evaluations_per_epoch=per_epoch)
        )
        assert schedule.rung_steps == expected
        assert schedule.steps == expected[-1] == -(-rows // 8) * epochs

    @pytest.mark.parametrize("warmup", [0.0, 0.25, 0.06, 1.0])
    def test_warm_up_and_decay_are_linear(self, warmup: float) -> None:
        schedule = Schedule.of(400, hyperparameters(warmup=warmup), settings())
        factors = [schedule.rate_factor(step) for step in range(schedule.steps + 1)]
        rising, falling = factors[: schedule.warmup_steps], factors[schedule.warmup_steps :]
        assert schedule.warmup_steps == int(np.ceil(100 * warmup))
        assert rising == pytest.approx([(k + 1) / len(rising) for k in range(len(rising))])
        assert falling == pytest.approx(
            np.linspace(min(1, schedule.steps - len(rising)), 0, len(falling)).tolist()
        )
        assert max(factors) == 1
        assert min(factors[:-1]) > 0

    @pytest.mark.parametrize("kind", ["linear", "cosine"])
    @pytest.mark.parametrize("warmup", [0.0, 0.25])
    def test_the_decay_is_that_of_transformers(self, kind: str, warmup: float) -> None:
        """Whose warm-up begins with a step at rate 0."""
        schedule = Schedule.of(400, hyperparameters(warmup=warmup, schedule=kind), settings())
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        make = get_cosine_schedule_with_warmup if kind == "cosine" else get_linear_schedule_with_warmup
        scheduler = make(optimizer, schedule.warmup_steps, schedule.steps)
        expected = []
        for _ in range(schedule.steps + 1):
            expected.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        found = [schedule.rate_factor(step) for step in range(schedule.steps + 1)]
        begin = schedule.warmup_steps
        assert found[begin:] == pytest.approx(expected[begin:])
        assert found[: max(0, begin - 1)] == pytest.approx(expected[1:begin])

    def test_rates_that_the_optimiser_gets(self, bert: LoadedBase) -> None:
        chosen = hyperparameters(warmup=0.25, learning_rate=8e-4)
        state = start(bert, chosen)
        optimizer = recording(state)
        evaluations = list(fine_tune(state, dataset(), chosen, settings()))
        warm, cool = [1 / 3, 2 / 3, 1], [k / 9 for k in range(9, 0, -1)]
        assert optimizer.rates == pytest.approx([8e-4 * factor for factor in warm + cool])
        assert [e.learning_rate for e in evaluations] == [optimizer.rates[e.step - 1] for e in evaluations]
        assert [e.epoch for e in evaluations] == [0.5, 1, 1.5, 2]

    def test_fewer_steps_than_rungs_repeats_the_evaluation(self, bert: LoadedBase, tmp_path: Path) -> None:
        data, chosen, shared = dataset(rows=8), hyperparameters(), settings(epochs=1, evaluations_per_epoch=3)
        state = start(bert, chosen)
        loop = fine_tune(state, data, chosen, shared)
        evaluations = [next(loop), next(loop)]
        state.save(tmp_path)
        evaluations.append(next(loop))
        assert [e.rung for e in evaluations] == [1, 2, 3]
        assert [e.step for e in evaluations] == [1, 1, 1]
        assert evaluations[0].train_loss > 0
        assert all(key_figures(e)[1:] == key_figures(evaluations[0])[1:] for e in evaluations)
        again = start(bert, chosen)
        again.load(tmp_path)
        assert [key_figures(e) for e in fine_tune(again, data, chosen, shared)] == [
            key_figures(evaluations[2])
        ]


class TestBatches:
    def seen(self, bert: LoadedBase, chosen: Hyperparameters, **arguments: Any) -> list[bytes]:
        """The token ids of each training batch."""
        state = start(bert, chosen)
        batches: list[bytes] = []

        def note(module: nn.Module, args: Any, inputs: dict[str, torch.Tensor]) -> None:
            if module.training:
                batches.append(inputs["input_ids"].numpy().tobytes())

        state.model.register_forward_pre_hook(note, with_kwargs=True)
        list(fine_tune(state, dataset(), chosen, settings(), **arguments))
        return batches

    def test_the_order_is_the_settings_seed_s(self, bert: LoadedBase) -> None:
        train = dataset().train
        expected = [
            train.batch(rows, CPU)["input_ids"].numpy().tobytes()
            for epoch in (0, 1)
            for rows in epoch_batches(train.lengths, 8, 0, epoch)
        ]
        assert self.seen(bert, hyperparameters()) == expected

    def test_balanced_ones_are_drawn_by_the_labels(self, bert: LoadedBase) -> None:
        train = dataset().train
        expected = [
            train.batch(rows, CPU)["input_ids"].numpy().tobytes()
            for epoch in (0, 1)
            for rows in epoch_batches(train.lengths, 8, 0, epoch, train.labels)
        ]
        assert self.seen(bert, hyperparameters(sampling="balanced")) == expected

    def test_an_order_given_is_obeyed(self, bert: LoadedBase) -> None:
        asked: list[int] = []

        def order(epoch: int) -> list[np.ndarray]:
            asked.append(epoch)
            return [np.arange(k, k + 2) + epoch for k in range(6)]

        train = dataset().train
        expected = [
            train.batch(rows, CPU)["input_ids"].numpy().tobytes() for epoch in (0, 1) for rows in order(epoch)
        ]
        asked.clear()
        assert self.seen(bert, hyperparameters(), batches=order) == expected
        assert set(asked) == {0, 1}


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "full"])
def test_learns_what_the_texts_tell(bert: LoadedBase, method: str) -> None:
    chosen = hyperparameters(
        method=method, learning_rate=3e-3 if method == "full" else 1e-2, base_dropout=0.0
    )
    evaluations = list(fine_tune(start(bert, chosen), dataset(120), chosen, settings(epochs=4)))
    assert evaluations[-1].scores.accuracy >= 0.9
    assert evaluations[-1].train_loss < evaluations[0].train_loss / 2


def test_the_validation_loss_is_the_plain_cross_entropy(bert: LoadedBase) -> None:
    """Whatever trains: else a search that is judged by loss would prefer less smoothing, or other weights."""
    data = dataset()
    chosen = hyperparameters(label_smoothing=0.3, loss="focal", sampling="balanced")
    evaluations = list(fine_tune(start(bert, chosen), data, chosen, settings(class_weights=True)))
    for evaluation in evaluations:
        shifted = evaluation.logits.astype(np.float64)
        shares = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        true = shares[np.arange(len(shares)), data.validation.labels]
        assert evaluation.scores.loss == pytest.approx(-np.log(true).mean())


def test_evaluation_leaves_the_model_in_training_mode(bert: LoadedBase) -> None:
    chosen = hyperparameters()
    state = start(bert, chosen)
    before = copies(state.model)
    next(fine_tune(state, dataset(), chosen, settings()))
    assert state.model.training
    assert state.amp == FP32
    assert not same(before, copies(state.model))
