"""Where what follows the trials runs, what it leaves behind there, and what becomes of it on a node that fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import pytest
import torch
from ray.cluster_utils import Cluster

from lorasweep.tuning.trials import cluster as joining
from lorasweep.tuning.trials import trial
from lorasweep.tuning.trials.faults import NodeError
from lorasweep.tuning.trials.ray_access import MODE
from lorasweep.tuning.trials.remote import RemoteCall, run_alone
from lorasweep.tuning.trials.shares import Resources

VARIABLE = "LORASWEEP_TEST_NODE"
ON_CORES = Resources(4, 0.0, 1, 0.0, 2)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster that this process has joined: node `first`, on which Ray counts two GPUs, and `second`."""
    with pytest.MonkeyPatch.context() as patch:
        # Unset, Ray sets it to "token", and what a later test starts asks for a token that its commands do not have.
        patch.setenv(MODE, "disabled")
        cluster = Cluster()
        for name, gpus in (("first", 2), ("second", 0)):
            cluster.add_node(num_cpus=2, num_gpus=gpus, env_vars={VARIABLE: name})
        joining.start_ray(cluster.address)
        yield cluster.address
        joining.stop_ray()
        cluster.shutdown()


Where = Callable[[], tuple[int, str | None]]


@pytest.fixture
def where() -> Where:
    """Returns the process, and the GPUs that Ray lets it see."""

    # Inside a function it travels whole: a worker cannot import the tests.
    def here() -> tuple[int, str | None]:
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")

    return here


@pytest.mark.slow
def test_a_worker_with_a_gpu_ends_with_its_task(address: str, where: Where) -> None:
    """Else it keeps memory of the GPU, and its next task sees the GPU of the first."""
    resources = Resources(2, 2.0, 1, 1.0, 2)
    seen = [RemoteCall(resources, where).result() for _ in range(3)]
    assert len({process for process, _ in seen}) == 3
    assert all(gpus in ("0", "1") for _, gpus in seen)
    together = [call.result() for call in [RemoteCall(resources, where) for _ in range(2)]]
    assert sorted(gpus for _, gpus in together) == ["0", "1"]


@pytest.mark.slow
def test_a_worker_without_a_gpu_is_used_again(address: str) -> None:
    """Its imports take seconds, and the base model stays."""

    def here() -> tuple[str, int]:
        import os

        return os.environ["LORASWEEP_TEST_NODE"], os.getpid()

    seen = {RemoteCall(ON_CORES, here).result() for _ in range(5)}
    assert len(seen) == len({node for node, _ in seen}), "one process on each node that was called"


@pytest.mark.slow
def test_what_a_node_cannot_do_is_done_on_another(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its line names the node. Where each of them fails that ends it, as does an error of the function's own."""

    def work(bad: str) -> str:
        import os

        from lorasweep.tuning.trials.faults import NodeError

        here = os.environ["LORASWEEP_TEST_NODE"]
        if bad == "function":
            raise ZeroDivisionError("its own")
        if bad in (here, "both"):
            raise NodeError("base model x cannot be read")
        return here

    with caplog.at_level(logging.WARNING, "lorasweep"):
        assert RemoteCall(ON_CORES, work, "first").result() == "second"
        assert run_alone(address, ON_CORES, work, "second") == "first"
        with pytest.raises(NodeError, match=r"^node .+: base model x cannot be read$"):
            RemoteCall(ON_CORES, work, "both").result()
    told = [
        record.getMessage() for record in caplog.records if "tried on another node" in record.getMessage()
    ]
    assert told
    assert all(line.startswith("failure of node ") and "base model x cannot be read" in line for line in told)
    with pytest.raises(ZeroDivisionError):
        RemoteCall(ON_CORES, work, "function").result()


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
    monkeypatch.setattr(trial.loaded_base, "cache_clear", lambda: freed.append("base"))
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
