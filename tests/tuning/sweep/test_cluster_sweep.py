"""Whole sweeps on a cluster: a head that only plans, and nodes that train. Ray's own nodes, all on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from whole_sweeps import lorasweep

from lorasweep.training.devices import count_cards
from lorasweep.tuning.record.folder import SweepFolder

RUN = ("run", "--data", "rows.csv", "--base-model", "./base", "--max-length", "16", "--space", "lora_cpu")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a head of one core, and a node of two cores and, by Ray's count, two GPUs."""
    cluster = Cluster()
    for cpus, gpus in ((1, 0), (2, 2)):
        cluster.add_node(num_cpus=cpus, num_gpus=gpus)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_a_sweep_trains_on_the_nodes_in_one_precision(address: str, place: Path) -> None:
    given = (
        "--address",
        address,
        "--storage",
        "shared",
        "--gpus-per-trial",
        "0",
        "--trials",
        "2",
        "--epochs",
        "1",
        "--no-asha",
        "--name",
        "cpus",
    )
    lorasweep(place, *RUN, *given)
    folder = SweepFolder(place / "mlruns", "cpus")
    assert folder.config().resources.storage == str(place / "shared"), "in full, for other folders and nodes"
    plan, trials = folder.plan(), folder.trials()
    assert plan["resources"] == {
        "cpus": 3,
        "gpus": 2.0,
        "cpus_per_trial": 1,
        "gpus_per_trial": 0.0,
        "concurrency": 2,
    }
    assert plan["precision"] in ("bf16", "fp32")
    assert plan["estimate"]["total"] > 0, "by steps that a node has timed"
    assert [trial.state for trial in trials] == ["completed"] * 2
    for trial in trials:
        ran_in = json.loads((Path(str(trial.checkpoint)) / "best.json").read_text())
        assert (ran_in["precision"], ran_in["device"]) == (plan["precision"], "cpu")
        assert (folder.path / "best" / trial.id / "adapter_model.safetensors").is_file(), (
            "exported and verified"
        )


@pytest.mark.slow
@pytest.mark.skipif(count_cards() > 0, reason="this machine has a GPU")
def test_gpus_that_torch_cannot_use_are_an_error_before_the_first_trial(address: str, place: Path) -> None:
    """Ray counts them by their driver. A trial would train on a core, and keep the GPU from others."""
    given = ("--address", address, "--storage", "shared", "--name", "gpus")
    _, err = lorasweep(place, *RUN, *given, code=2)
    line = " ".join(err.split())
    assert line.startswith(f"lorasweep: --address {address}: 1 of 1 nodes cannot train: ")
    assert ": a trial has reserved 1 of a GPU: " in line
    assert "torch's CUDA is" in line
    assert "train on CPU cores: --gpus-per-trial 0. Mend that" in line
    assert not (place / "mlruns" / "sweeps" / "gpus").exists()
