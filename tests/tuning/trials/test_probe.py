"""What each node of a cluster is asked before a sweep begins, and how a node that cannot train is named."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from lorasweep.training.errors import SettingsError
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.hub import BaseModel, fingerprint
from lorasweep.tuning.record.config import ResourceSettings
from lorasweep.tuning.record.machine import package_versions
from lorasweep.tuning.storage.check import marked
from lorasweep.tuning.trials import cluster as joining
from lorasweep.tuning.trials import probe as module
from lorasweep.tuning.trials.hardware import Node, NodeAnswer, find_hardware, find_nodes
from lorasweep.tuning.trials.probe import Probed, Question, in_time, probe_nodes, try_node, version_notes

VARIABLE = "LORASWEEP_TEST_NODE"
VERSIONS = {"lorasweep": "1.0", "torch": "2.13.0", "peft": "0.21", "ray": "2.60", "transformers": "5"}


@pytest.fixture
def base(tiny_base: Callable[[str], Path], tmp_path: Path) -> BaseModel:
    """A base model that a test may change."""
    return resolve_base_model(str(shutil.copytree(tiny_base("bert"), tmp_path / "base")))


def question(base: BaseModel, storage: str | None = None, mark: str | None = None) -> Question:
    return Question(package_versions(), ((base, fingerprint(base)),), storage, mark, on_gpus=False)


def test_a_node_like_this_machine_can_train(base: BaseModel, tmp_path: Path) -> None:
    storage = str(tmp_path / "new" / "storage")
    with marked(storage) as mark:
        answer = try_node(question(base, storage, mark))
    assert answer["problem"] is None
    assert "fp32" in answer["hardware"].precisions
    assert answer["packages"]["torch"]
    assert not (tmp_path / "new").exists(), "nothing is left"


def test_a_node_without_the_base_model_or_with_another_cannot_train(base: BaseModel) -> None:
    asked = question(base)
    weights = Path(base.location) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"another base model lies at {base.location} there" in try_node(asked)["problem"]
    weights.unlink()
    told = rf"base model {base.location} cannot be read there \(.*no weights.*; copy it to the same place"
    assert_line(told, try_node(asked)["problem"])
    shutil.rmtree(base.location)
    assert_line(f"base model {base.location} cannot be read there", try_node(asked)["problem"])


def assert_line(pattern: str, text: str) -> None:
    assert "\n" not in text
    assert re.search(pattern, text), text


def test_another_lorasweep_is_refused_before_anything_of_it_is_used(base: BaseModel) -> None:
    gone = ((replace(base, location="/gone"), ""),)
    other = replace(question(base), packages={"lorasweep": "0.0.1"}, bases=gone)
    here = package_versions().get("lorasweep")
    assert try_node(other)["problem"] == (
        f"it has lorasweep {here}, and this machine 0.0.1; install the same there"
    )


def test_a_package_that_is_missing_is_named(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'peft'")

    monkeypatch.setattr(module.importlib, "import_module", missing)
    assert try_node(question(base))["problem"] == (
        "lorasweep cannot run there (No module named 'peft'); install it as here"
    )


def test_nobody_is_asked_where_no_node_has_joined_yet(base: BaseModel) -> None:
    assert probe_nodes(ResourceSettings(address="auto"), (Node(0, 0, "head"),), [base]) == Probed({})


def test_a_storage_that_is_not_shared_or_never_answers(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of the same name that is the node's own looks like a storage until the sweep wants its checkpoints."""
    (tmp_path / "own").mkdir()
    own = try_node(question(base, str(tmp_path / "own"), "elsewhere"))["problem"]
    assert own.startswith(f"--storage {tmp_path / 'own'}: the driver's files are not there; name a folder")
    monkeypatch.setattr(module, "STORAGE_SECONDS", 0.1)
    monkeypatch.setattr(module, "problem_with", lambda storage, mark: time.sleep(5))
    assert try_node(question(base, "s3://bucket"))["problem"] == (
        "--storage s3://bucket: has not answered there in 0.1 s"
    )
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 // 0, 5)


def test_versions_that_differ_are_notes() -> None:
    """Nodes with the same one together; what a sweep does not depend on is not told."""
    other = VERSIONS | {"torch": "2.12.0", "optuna": "4"}
    nodes = [("a", VERSIONS), ("b", other), ("c", other)]
    assert version_notes(nodes, VERSIONS) == [
        "b, c: torch 2.12.0, and 2.13.0 here; scores may differ between nodes"
    ]
    assert version_notes([("a", VERSIONS | {"python": "3.12"})], VERSIONS | {"python": "3.11"}) == [
        "a: python 3.12, and 3.11 here; scores may differ between nodes"
    ]


def answering(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str | None, dict[str, Any]]
) -> dict[str, list[Any]]:
    """Nodes that answer so; what they were asked."""
    seen: dict[str, list[Any]] = {"nodes": [], "questions": []}

    def ask_all(nodes: tuple[Node, ...], asked: Question) -> dict[str | None, dict[str, Any]]:
        seen["nodes"] += [node.id for node in nodes]
        seen["questions"].append(asked)
        return {node.id: answers[node.id] for node in nodes}

    monkeypatch.setattr(module, "_ask_all", ask_all)
    monkeypatch.setattr(module, "node_names", lambda: {name: f"{name}-host" for name in "abcdefgh"})
    return seen


def test_nodes_that_cannot_train_are_named_together_in_one_line(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"packages": package_versions(), "problem": None, "hardware": NodeAnswer((), ("fp32",))}
    bad = {"packages": {}, "problem": "no such\nmodel"}
    seen = answering(monkeypatch, {"a": good, "b": bad, "c": bad, "d": good | {"problem": "x"}})
    nodes = (*(Node(1, 0, name) for name in "abcd"), Node(0, 0, "e"))
    wanted = ResourceSettings(address="head:6379")
    with pytest.raises(SettingsError) as caught:
        probe_nodes(wanted, nodes, [base])
    assert str(caught.value) == (
        "--address head:6379: 3 of 4 nodes cannot train: b-host, c-host: no such model; d-host: x. Mend that, or "
        "take the node out of the cluster; on it: ray stop"
    )
    assert seen["nodes"] == ["a", "b", "c", "d"], "who has no core is not asked"
    answering(monkeypatch, {"a": good})
    probed = probe_nodes(wanted, (Node(1, 0, "a"),), [base])
    assert probed.hardware == {"a": good["hardware"]}
    assert find_hardware("head:6379", (Node(1, 0, "a"),), 0, probed.hardware).precisions == ("fp32",)
    assert probe_nodes(ResourceSettings(), nodes, [base]) == Probed()


def test_a_node_that_is_lost_meanwhile_is_left_out(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray does a moment later; the others are the cluster."""
    good = {"packages": package_versions(), "problem": None, "hardware": NodeAnswer((), ("fp32",))}
    monkeypatch.setattr(module, "_ask_all", lambda nodes, asked: {"a": good})
    monkeypatch.setattr(module, "node_names", lambda: {"a": "a-host"})
    probed = probe_nodes(ResourceSettings(address="head:6379"), (Node(1, 0, "a"), Node(1, 0, "b")), [base])
    assert (probed.hardware, probed.gone) == ({"a": good["hardware"]}, {"b"})


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a cluster, and what is wrong with each of its nodes → Ray's id of it."""
    cluster = Cluster()
    wrong = ("nothing", "model", "package")
    nodes = {name: cluster.add_node(num_cpus=1, env_vars={VARIABLE: name}) for name in wrong}
    try:
        yield cluster.address, {name: node.node_id for name, node in nodes.items()}
    finally:
        joining.stop_ray()
        cluster.shutdown()


def try_broken_node(asked: Question) -> dict[str, Any]:
    """`try_node`, on a node that lacks what its environment says."""
    import os

    lacks = os.environ[VARIABLE]
    if lacks == "package":
        raise ModuleNotFoundError("No module named 'lorasweep'")
    if lacks == "model":
        asked = replace(
            asked, bases=tuple((replace(base, location="/nowhere"), files) for base, files in asked.bases)
        )
    return try_node(asked)


@pytest.mark.slow
def test_real_nodes_answer_for_themselves(
    three_nodes: tuple[str, dict[str, str]], base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = three_nodes
    wanted = ResourceSettings(address=address, storage=str(tmp_path / "storage"))
    monkeypatch.setattr(module, "ask", try_broken_node)
    # One that was killed a moment ago, and that Ray still counts.
    lost = Node(1, 0, "ab" * 28)
    with pytest.raises(SettingsError) as caught:
        probe_nodes(wanted, (lost, *find_nodes(address)), [base])
    assert_line(r"^--address \S+: 2 of 3 nodes cannot train: ", str(caught.value))
    assert_line(r": base model /nowhere cannot be read there \(", str(caught.value))
    assert_line(
        r"lorasweep cannot run there \(.*No module named 'lorasweep'\); install it as here", str(caught.value)
    )
