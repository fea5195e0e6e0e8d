"""What a plan learns of the machines on which trials run, though its own process may have no GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import ClusterConfig

from lorasweep.training import devices
from lorasweep.training.amp_types import Precision
from lorasweep.training.devices import Card
from lorasweep.training.errors import SettingsError
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.tuning.trials import cluster as joining
from lorasweep.tuning.trials import hardware as module
from lorasweep.tuning.trials.hardware import (
    Hardware,
    Node,
    NodeAnswer,
    coming_nodes,
    find_hardware,
    find_nodes,
    look,
)

GB = 10**9
A100 = Card("NVIDIA A100-SXM4-80GB", (8, 0), 80 * GB)
T4 = Card("Tesla T4", (7, 5), 16 * GB)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def found_at(address: str | None, gpus_per_trial: float | None) -> Hardware:
    """The nodes of a cluster or this machine, and their answers."""
    return find_hardware(address, find_nodes(address), gpus_per_trial)


def test_this_machine_is_found() -> None:
    """At least a core; the GPUs that torch sees, or what the processor can do."""
    found = found_at(None, None)
    assert [node.id for node in found.nodes] == [None]
    assert found.nodes[0].cpus >= 1
    assert len(found.cards) == found.nodes[0].gpus
    assert found.precisions[-1] == "fp32"


def test_a_process_sees_its_processor() -> None:
    assert look(False) == NodeAnswer(
        (), tuple(name for name in ("bf16", "fp32") if AmpPolicy(name, CPU).in_hardware)
    )
    assert found_at(None, 0).names == "cpu"
    assert found_at(None, 0).precision("auto", "bert") == resolve_precision("auto", CPU)


@pytest.mark.parametrize(
    ("cards", "names", "precisions"),
    [
        ((A100,), "NVIDIA A100-SXM4-80GB", ("bf16", "fp16", "fp32")),
        ((A100, T4, T4), "NVIDIA A100-SXM4-80GB, 2 × Tesla T4", ("fp16", "fp32")),
    ],
)
def test_a_process_sees_its_gpus(
    cards: tuple[Card, ...],
    names: str,
    precisions: tuple[Precision, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "cards", lambda: list(cards))
    monkeypatch.setattr(module, "count_cards", lambda: len(cards))
    assert look(True) == NodeAnswer(cards, precisions)
    found = found_at(None, None)
    assert (found.device, found.names, found.precisions) == (CUDA, names, precisions)
    assert found.precision("auto", "bert") == AmpPolicy(precisions[0], CUDA)
    # Who trains on cores is not asked about GPUs.
    assert found_at(None, 0).cards == ()


def test_a_gpu_that_torch_cannot_use_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a trial on the CPU that keeps the GPU from others."""
    monkeypatch.setattr(module, "count_cards", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"torch's CUDA is .*driver .*--gpus-per-trial 0$"):
        found_at(None, None)
    assert found_at(None, 0).cards == ()


def test_a_cluster_may_have_no_cores_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head gives none away, and nodes that are gone do not count. Nobody is asked, so nothing is promised."""
    nodes = [("head", True, {"memory": 2.0}), ("gone", False, {"CPU": 8.0})]
    alive = [{"NodeID": name, "Alive": alive, "Resources": has} for name, alive, has in nodes]
    monkeypatch.setattr(module, "start_ray", lambda address: None)
    monkeypatch.setattr(ray, "nodes", lambda: alive)
    found = find_nodes("head:6379")
    assert found == (Node(0, 0, "head"),)
    assert find_hardware("head:6379", found).precisions == ("fp32",)


def test_an_autoscaler_tells_what_it_may_add(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClusterConfig()
    for cpus, gpus, most in ((8, 0, 4), (16, 2, -1), (64, 8, 0)):
        group = config.node_group_configs.add(max_count=most)
        group.resources["CPU"] = cpus
        if gpus:
            group.resources["GPU"] = gpus
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: config)
    assert coming_nodes("head:6379") == (Node(8, 0), Node(16, 2))
    assert coming_nodes(None) is None
    for nothing in (lambda: None, lambda: 1 / 0):
        monkeypatch.setattr(ray._private.state.state, "get_cluster_config", nothing)
        assert coming_nodes("head:6379") == ()


def test_who_cannot_hold_a_trial_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of two GPUs do not run on a node with one, nor on one without a core, whatever they have."""
    nodes = (Node(8, 0, "a"), Node(8, 1, "b"), Node(8, 2, "c"), Node(0, 2, "d"))
    asked: list[str | None] = []

    def answers(address: str, nodes: list[Node], on_gpus: bool) -> list[NodeAnswer]:
        asked.extend(node.id for node in nodes)
        return [NodeAnswer((A100,), ("bf16",))]

    monkeypatch.setattr(module, "_answers", answers)
    for gpus, ids in ((None, "bc"), (0.5, "bc"), (2, "c"), (0, "abc")):
        asked.clear()
        find_hardware("head:6379", nodes, gpus)
        assert "".join(map(str, asked)) == ids


def of_cards(*cards: Card) -> Hardware:
    common: tuple[Precision, ...] = ("fp16", "fp32") if T4 in cards else ("bf16", "fp16", "fp32")
    return Hardware((Node(8, len(cards)),), cards, common)


def test_unequal_gpus_train_in_what_all_of_them_can_do_and_it_is_said() -> None:
    mixed, equal = of_cards(A100, T4), of_cards(A100, A100)
    assert mixed.precision("auto", "bert").name == "fp16"
    assert mixed.precision("auto", "deberta").name == "fp32"
    assert mixed.precision("bf16", "bert").name == "bf16"
    both = "the GPUs differ (NVIDIA A100-SXM4-80GB, Tesla T4): all trials run in"
    assert mixed.notes("auto", AmpPolicy("fp16", CUDA)) == [
        f"{both} fp16, which all of them have in hardware"
    ]
    assert mixed.notes("bf16", AmpPolicy("bf16", CUDA)) == [
        f"{both} bf16, as asked for",
        "precision bf16: emulated, and slow, on Tesla T4; fp16 would be faster",
    ]
    assert equal.notes("auto", AmpPolicy("bf16", CUDA)) == []
    assert equal.notes("fp32", AmpPolicy("fp32", CUDA)) == []


def test_unequal_processors_train_in_what_all_of_them_can_do() -> None:
    """Wherever the plan is made, with or without bf16."""
    nodes = (Node(8, 0, "a"), Node(8, 0, "b"))
    assert Hardware(nodes, (), ("fp32",)).precision("auto", "bert").name == "fp32"
    assert Hardware(nodes, (), ("bf16", "fp32")).precision("auto", "bert").name == "bf16"
    assert Hardware(nodes, (), ("bf16", "fp32")).precision("auto", "deberta").name == "fp32"
    with pytest.raises(SettingsError, match="fp16 needs a GPU"):
        Hardware(nodes, (), ("fp32",)).precision("fp16", "bert")


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[tuple[str, list[str]]]:
    """Address of a cluster and Ray's ids of its nodes: a head without a GPU, and two nodes with GPUs by Ray's count."""
    cluster = Cluster()
    nodes = [cluster.add_node(num_cpus=cpus, num_gpus=gpus) for cpus, gpus in ((3, 0), (1, 1), (2, 2))]
    try:
        yield cluster.address, [node.node_id for node in nodes]
    finally:
        joining.stop_ray()
        cluster.shutdown()


def answering(answers: Mapping[str, NodeAnswer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes say so of themselves, by Ray's ids; in a process that ends afterwards, and sees the GPUs of its node."""

    def answer(on_gpus: bool) -> NodeAnswer:
        assert "CUDA_VISIBLE_DEVICES" not in os.environ or os.environ["CUDA_VISIBLE_DEVICES"] == given
        return answers[ray.get_runtime_context().get_node_id()]

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(module, "ask", answer)


@pytest.mark.slow
def test_a_cluster_is_asked_node_by_node(
    three_nodes: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, (head, small, large) = three_nodes
    every: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
    answering(
        {
            small: NodeAnswer((A100,), every),
            large: NodeAnswer((T4, T4), ("fp16", "fp32")),
            head: NodeAnswer((), ("fp32",)),
        },
        monkeypatch,
    )
    found = found_at(address, None)
    assert sorted(found.nodes, key=lambda node: node.gpus) == [
        Node(3, 0, head),
        Node(1, 1, small),
        Node(2, 2, large),
    ]
    assert sorted(card.name for card in found.cards) == [A100.name, T4.name, T4.name]
    assert found.precision("auto", "bert") == AmpPolicy("fp16", CUDA)
    assert found.precision("fp16", "bert") == AmpPolicy("fp16", CUDA)
    answering({node: NodeAnswer((), ("bf16", "fp32")) for node in (head, small, large)}, monkeypatch)
    assert found_at(address, 0).precisions == ("bf16", "fp32")


@pytest.mark.slow
def test_a_node_that_cannot_train_is_named_in_one_line(
    three_nodes: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, (_, small, large) = three_nodes
    broken = NodeAnswer(problem="torch cannot use a GPU here")
    answering({small: broken, large: NodeAnswer((T4, T4), ("fp16", "fp32"))}, monkeypatch)
    with pytest.raises(SettingsError, match=rf"^--address {address}: torch cannot use a GPU here$"):
        found_at(address, None)

    def not_installed(on_gpus: bool) -> NodeAnswer:
        raise ModuleNotFoundError("No module named 'peft'")

    monkeypatch.setattr(module, "ask", not_installed)
    with pytest.raises(
        SettingsError, match=r"a node cannot run lorasweep \(No module named 'peft'\)"
    ) as caught:
        found_at(address, None)
    assert "\n" not in str(caught.value)
    # The real question: Ray's GPUs are none that torch could use.
    monkeypatch.setattr(module, "ask", look)
    if not devices.count_cards():
        with pytest.raises(SettingsError, match="torch's CUDA is"):
            found_at(address, None)


@pytest.mark.slow
def test_a_node_that_does_not_answer_is_not_waited_for(
    three_nodes: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(on_gpus: bool) -> NodeAnswer:
        import time

        time.sleep(60)
        raise AssertionError

    monkeypatch.setattr(module, "ask", never)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    with pytest.raises(SettingsError, match="2 of 2 nodes have not said in 1 s"):
        found_at(three_nodes[0], None)
