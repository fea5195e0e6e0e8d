"""Where what follows the trials runs, and what it leaves behind there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray
import torch

from lorasweep.tuning.sweep.after_trials import run_alone, run_remote
from lorasweep.tuning.trials import cluster, trial
from lorasweep.tuning.trials.shares import Resources


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """A Ray that counts two GPUs."""
    cluster.start_ray(None, 2, 2)
    yield
    cluster.stop_ray()


def where() -> tuple[int, str | None]:
    """The process, and the GPUs that Ray lets it see."""
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.slow
def test_a_worker_with_a_gpu_ends_with_its_task(two_gpus: None) -> None:
    """Else it keeps memory of the GPU, and its next task sees the GPU of the first."""
    resources = Resources(2, 2.0, 1, 1.0, 2)
    seen = [ray.get(run_remote(resources, where)) for _ in range(3)]
    assert len({process for process, _ in seen}) == 3
    assert all(gpus in ("0", "1") for _, gpus in seen)
    together = ray.get([run_remote(resources, where) for _ in range(2)])
    assert sorted(gpus for _, gpus in together) == ["0", "1"]


@pytest.mark.slow
def test_a_worker_without_a_gpu_is_used_again(two_gpus: None) -> None:
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
