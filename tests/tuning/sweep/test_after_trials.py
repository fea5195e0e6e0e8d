"""Where what follows the trials runs, and what it leaves behind there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from tiny_trials import CPU, dataset, hyperparameters, settings
from transformers import BertForSequenceClassification

from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.state import WEIGHTS_FOLDER
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.classifier import save_weights
from lorasweep.tuning.sweep.after_trials import CheckpointError, predict_test, run_alone, run_remote
from lorasweep.tuning.trials import cluster, node_watch, trial
from lorasweep.tuning.trials.checkpoints import open_checkpoint
from lorasweep.tuning.trials.faults import NodeError
from lorasweep.tuning.trials.ray_access import MODE
from lorasweep.tuning.trials.shares import Resources
from lorasweep.tuning.trials.trial import TrialSetup, start_state


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """A Ray that counts two GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        # Unset, Ray sets it to "token", and what a later test starts asks for a token that its commands do not have.
        patch.setenv(MODE, "disabled")
        cluster.start_ray(None, 2, 2)
        yield
        cluster.stop_ray()


Where = Callable[[], tuple[int, str | None]]


@pytest.fixture
def where() -> Where:
    """Returns the process, and the GPUs that Ray lets it see."""

    # Inside a function it travels whole: a worker cannot import the tests.
    def here() -> tuple[int, str | None]:
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")

    return here


@pytest.mark.slow
def test_a_worker_with_a_gpu_ends_with_its_task(two_gpus: None, where: Where) -> None:
    """Else it keeps memory of the GPU, and its next task sees the GPU of the first."""
    resources = Resources(2, 2.0, 1, 1.0, 2)
    seen = [ray.get(run_remote(resources, where)) for _ in range(3)]
    assert len({process for process, _ in seen}) == 3
    assert all(gpus in ("0", "1") for _, gpus in seen)
    together = ray.get([run_remote(resources, where) for _ in range(2)])
    assert sorted(gpus for _, gpus in together) == ["0", "1"]


@pytest.mark.slow
def test_a_worker_without_a_gpu_is_used_again(two_gpus: None, where: Where) -> None:
    """Its imports take seconds, and the base model stays."""
    resources = Resources(2, 0.0, 1, 0.0, 2)
    assert len({ray.get(run_remote(resources, where))[0] for _ in range(3)}) == 1


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("gpus", [0.0, 0.5])
def test_this_process_keeps_nothing_of_a_gpu(
    gpus: float, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the base model nor the limit of its memory, whether or not the training ends well."""
    freed: list[str] = []
    device = torch.device("cuda", 0)
    monkeypatch.setattr(trial, "choose_device", lambda kind, index: device)
    monkeypatch.setattr(trial, "release", lambda given: freed.append(str(given)))
    monkeypatch.setattr(trial._loaded_base, "cache_clear", lambda: freed.append("base"))
    resources = Resources(2, 1.0, 1, gpus, 1)

    def train(value: int) -> int:
        if fails:
            raise ZeroDivisionError
        return value

    if fails:
        with pytest.raises(ZeroDivisionError):
            run_alone(None, resources, train, 3)
    else:
        assert run_alone(None, resources, train, 3) == 3
    assert freed == (["base", "cuda:0"] if gpus else [])


def test_a_winner_is_not_passed_over_for_a_storage_that_is_away(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for. A checkpoint that is gone from a storage that is there is lost."""
    slept: list[float] = []
    monkeypatch.setattr(node_watch.time, "sleep", slept.append)
    setup = TrialSetup(
        resolve_base_model(str(tiny_base("bert"))), settings(), 1, 0, storage=str(tmp_path / "s")
    )
    checkpoint = str(tmp_path / "s" / "checkpoint")
    with pytest.raises(NodeError, match=r"the storage .* is away"):
        predict_test(hyperparameters(), checkpoint, dataset(), setup)
    assert slept == list(node_watch.PAUSES)
    (tmp_path / "s").mkdir()
    with pytest.raises(CheckpointError):
        predict_test(hyperparameters(), checkpoint, dataset(), setup)
    state = start_state(dataset(), setup, hyperparameters(), CPU)
    waits = iter([lambda: None, lambda: save_weights(state.model, Path(checkpoint) / WEIGHTS_FOLDER)])
    monkeypatch.setattr(node_watch.time, "sleep", lambda seconds: next(waits)())

    def unreachable_at_first(path: str, storage: str | None) -> object:
        if not Path(checkpoint).exists():
            raise ConnectionError("no route")
        return open_checkpoint(path, storage)

    monkeypatch.setattr("lorasweep.tuning.sweep.after_trials.open_checkpoint", unreachable_at_first)
    logits, _ = predict_test(hyperparameters(), checkpoint, dataset(), setup)
    assert len(logits) == len(dataset().test)


@pytest.mark.parametrize("place", ["load_base", "build_classifier", "TrainingState.start", "forward"])
def test_memory_that_runs_out_while_the_winner_is_scored_is_one_line(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*arguments: Any, **inputs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    setup = TrialSetup(resolve_base_model(str(tiny_base("bert"))), settings(), threads=1, gpu_share=0)
    chosen, data = hyperparameters(), dataset()
    save_weights(start_state(data, setup, chosen, CPU).model, tmp_path / WEIGHTS_FOLDER)
    logits, _ = predict_test(chosen, str(tmp_path), data, setup)
    assert logits.shape == (len(data.test), 3)
    trial._loaded_base.cache_clear()
    if place == "forward":
        monkeypatch.setattr(BertForSequenceClassification, "forward", full)
    else:
        monkeypatch.setattr(f"lorasweep.tuning.trials.trial.{place}", full)
    with pytest.raises(TrainingError, match=r"^out of memory .*(lower|fewer)") as caught:
        predict_test(chosen, str(tmp_path), data, setup)
    assert "\n" not in str(caught.value)
