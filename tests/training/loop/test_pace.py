"""The pace of training by a few steps, by a clock of the test's own and on a tiny random BERT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.loop.pace import STEPS, Pace, measure_pace
from lorasweep.training.model.base_model import LoadedBase, load_base, resolve_base_model
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Hyperparameters, TrainingSettings

CPU = AmpPolicy("fp32", torch.device("cpu"))


def texts(lengths: list[int]) -> EncodedTexts:
    """Rows of these lengths."""
    tokens = np.full(sum(lengths), 5, dtype=np.int32)
    offsets = np.cumsum([0, *lengths])
    return EncodedTexts(tokens, None, offsets, np.zeros(len(lengths), dtype=np.int64), 0)


@pytest.fixture
def loaded(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return load_base(resolve_base_model(str(tiny_base("bert"))), ("a", "b"), seed=0)


def clock_of(seconds: float) -> Callable[[], float]:
    """A clock on which all that is measured takes the same time, but the first, which takes a hundred times that."""
    readings = [0]

    def clock() -> float:
        readings[0] += 1
        number = readings[0] // 2
        return number * seconds + (99 * seconds if number else 0.0)

    return clock


def test_seconds_are_shared_among_tokens_and_summed_over_all(loaded: LoadedBase) -> None:
    """Batches of 4 rows: 12 of 8 tokens, as measured; the half of them has 4. The first step is not counted."""
    data = EncodedDataset(texts([8] * 40), texts([8] * 20 + [4] * 20), texts([8]), ("a", "b"))
    before = torch.get_num_threads()
    pace = measure_pace(
        loaded, data, Hyperparameters(batch_size=4), TrainingSettings(), CPU, 1, clock_of(1e-3)
    )
    assert torch.get_num_threads() == before
    assert pace.trained == pytest.approx(1e-3 / 4)
    # The one batch of 40 rows is padded to 8 tokens; its shortest 32 rows were timed, padded to 8 as well.
    assert pace.predicted == pytest.approx(1e-3 / 32)


def test_long_texts_take_the_time_of_their_chunks(loaded: LoadedBase) -> None:
    """Texts of two chunks of 8 tokens take twice the time of a text of one."""

    def halves(rows: int) -> EncodedTexts:
        chunks = texts([8] * 2 * rows)
        return replace(chunks, documents=np.arange(0, 2 * rows + 1, 2), labels=chunks.labels[::2])

    data = EncodedDataset(halves(40), halves(40), texts([8]), ("a", "b"))
    settings, hyperparameters = TrainingSettings(), Hyperparameters(batch_size=4)
    pace = measure_pace(loaded, data, hyperparameters, settings, CPU, 1, clock_of(1e-3))
    assert pace.trained == pytest.approx(1e-3 / 4)
    assert pace.predicted == pytest.approx(2 * 1e-3 / 32)


def test_slow_steps_are_few(loaded: LoadedBase) -> None:
    calls = [0]

    def clock() -> float:
        calls[0] += 1
        return calls[0] * 0.3

    data = EncodedDataset(texts([8] * 400), texts([8] * 40), texts([8]), ("a", "b"))
    measure_pace(loaded, data, Hyperparameters(batch_size=4), TrainingSettings(), CPU, 1, clock)
    # Four steps of 0.3 s and a prediction, two readings each; not all steps.
    assert calls[0] == 2 * 4 + 2 < 2 * STEPS
    calls[0] = 0
    measure_pace(
        loaded, data, Hyperparameters(batch_size=4), TrainingSettings(), CPU, 1, lambda: 9.0 * clock()
    )
    # One that takes longer than all may take is all that there is.
    assert calls[0] == 2 + 2


def test_a_base_model_is_the_same_afterwards(loaded: LoadedBase) -> None:
    state, random = {k: v.clone() for k, v in loaded.model.state_dict().items()}, torch.get_rng_state()
    data = EncodedDataset(texts([8] * 8), texts([8] * 8), texts([8]), ("a", "b"))
    pace = measure_pace(loaded, data, Hyperparameters(batch_size=4), TrainingSettings(), CPU, 1)
    assert pace.trained > 0
    assert pace.predicted > 0
    assert torch.equal(torch.get_rng_state(), random)
    after = loaded.model.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(state[name], after[name]) for name in state)


def test_a_rung_trains_its_share_and_predicts_all() -> None:
    settings = TrainingSettings(epochs=2, evaluations_per_epoch=3)
    assert Pace(trained=0.1, predicted=0.01).rung(300, 50, settings) == pytest.approx(10 + 0.5)
