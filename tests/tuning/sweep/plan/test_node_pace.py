"""The pace of a trial, timed by a Ray worker: as in a cluster, and on GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.settings import Hyperparameters, TrainingSettings
from lorasweep.tuning.sweep.plan import node_pace
from lorasweep.tuning.sweep.plan.node_pace import ROWS, pace_on_node
from lorasweep.tuning.trials.cluster import start_ray, stop_ray
from lorasweep.tuning.trials.ray_access import MODE
from lorasweep.tuning.trials.shares import Resources
from lorasweep.tuning.trials.trial import TrialSetup

RESOURCES = Resources(cpus=2, gpus=0.0, cpus_per_trial=1, gpus_per_trial=0.0, concurrency=2)


def texts(rows: int) -> EncodedTexts:
    tokens, offsets = np.full(4 * rows, 5, dtype=np.int32), np.arange(0, 4 * rows + 1, 4)
    return EncodedTexts(tokens, None, offsets, np.zeros(rows, dtype=np.int64), 0)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Unset, Ray sets it to "token", and what a later test starts asks for a token that its commands do not have.
        patch.setenv(MODE, "disabled")
        start_ray(None, 2)
        yield
        stop_ray()


def pace_of(base: Path, data: EncodedDataset, batch_size: int = 4) -> object:
    setup = TrialSetup(resolve_base_model(str(base)), TrainingSettings(precision="fp32"), 1, 0.0)
    return pace_on_node(None, RESOURCES, data, setup, Hyperparameters(batch_size=batch_size))


@pytest.mark.slow
def test_a_worker_times_a_few_steps(
    ray_here: None, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_base("bert")
    data = EncodedDataset(texts(40), texts(8), texts(8), ("a", "b"))
    pace = pace_of(base, data)
    assert pace is not None
    assert 0 < pace.trained < 1  # type: ignore[attr-defined]
    assert 0 < pace.predicted < 1  # type: ignore[attr-defined]

    # What fails there, or has no room, leaves the plan without minutes, and no task behind.
    assert pace_of(base, EncodedDataset(texts(40), texts(8), texts(8), ())) is None
    monkeypatch.setattr(node_pace, "ANSWER_SECONDS", 0.01)
    assert pace_of(base, data) is None


def test_few_rows_travel() -> None:
    data = EncodedDataset(texts(2 * ROWS + 1), texts(ROWS), texts(8), ("a", "b"))
    some = node_pace._some_rows(replace(data, by_base={"other": data}))
    assert not some.by_base, "the sweep's own base model is timed"
    assert (len(some.train), len(some.validation), len(some.test)) == (3334, ROWS, 8)
    assert some.train.lengths.tolist() == [4] * 3334
