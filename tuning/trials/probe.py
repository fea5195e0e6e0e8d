"""Asks each node of a cluster, before a sweep begins, whether trials can run there.

A node without lorasweep, without the base model or without the shared storage would fail one trial after the other.
"""

from __future__ import annotations

import importlib
import platform
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from lorasweep.training.errors import LorasweepError, SettingsError, first_line
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.model.base_model import empty_model, load_tokenizer
from lorasweep.training.model.hub import BaseModel, check_reachable, check_weights, fingerprint
from lorasweep.training.model.quantized import check_kernels
from lorasweep.training.settings import Quantize
from lorasweep.tuning.record.config import ResourceSettings
from lorasweep.tuning.record.machine import package_versions
from lorasweep.tuning.storage.check import marked, problem_with
from lorasweep.tuning.storage.filesystem import without_credentials
from lorasweep.tuning.trials.hardware import ANSWER_SECONDS, Node, NodeAnswer, could_train, look
from lorasweep.tuning.trials.place import node_names

# What a trial needs beside torch; a node may lack a part of it.
TRIAL_MODULE = "lorasweep.tuning.trials.trial"
# A different version of these trains otherwise, or reads no checkpoint of the others.
PACKAGES = ("torch", "transformers", "peft", "ray")
# A dead mount or a storage that drops what it is sent answers never.
STORAGE_SECONDS = 60
# Nodes and sentences that one line names.
MOST_NAMED = 5
Result = TypeVar("Result")


@dataclass(frozen=True)
class Question:
    """What each node is asked.

    Attributes:
        packages: name → version where the sweep is planned.
        bases: the base models of the trials, each with its `fingerprint` there.
        storage: `--storage` with a full path, or None.
        mark: name of a file that the planning process has written there; None without a storage.
        on_gpus: whether trials run on GPUs.
        quantize: how their frozen base models are stored.
    """

    packages: Mapping[str, str]
    bases: tuple[tuple[BaseModel, str], ...]
    storage: str | None
    mark: str | None
    on_gpus: bool
    quantize: Quantize | None = None


@dataclass(frozen=True)
class Probed:
    """What the nodes have answered; all of them can hold trials.

    Attributes:
        hardware: Ray's id of a node → what torch can use there; None where there is no cluster to ask.
        notes: versions that differ, a sentence each.
        gone: Ray's ids of nodes that were lost before they could answer.
    """

    hardware: Mapping[str | None, NodeAnswer] | None = None
    notes: tuple[str, ...] = ()
    gone: frozenset[str | None] = frozenset()


def try_node(question: Question) -> dict[str, Any]:
    """Try all that a trial needs on the node on which this process runs; plain values, for any version to read.

    Returns:
        `packages` (name → version), `problem` (why no trial can run there, or None), and `hardware`, a `NodeAnswer`,
        where there is no problem.
    """
    packages = package_versions() | {"python": platform.python_version()}
    answer: dict[str, Any] = {"packages": packages, "problem": None}
    here, there = packages.get("lorasweep"), question.packages.get("lorasweep")
    if here != there:
        return answer | {
            "problem": f"it has lorasweep {here}, and this machine {there}; install the same there"
        }
    try:
        importlib.import_module(TRIAL_MODULE)
        for base, files in question.bases:
            _try_base_model(base, files)
        if question.quantize is not None:
            check_kernels(question.quantize, "cuda" if question.on_gpus else "cpu")
        if question.storage is not None:
            storage, mark = question.storage, question.mark
            wrong = in_time(lambda: problem_with(storage, mark), STORAGE_SECONDS)
            if wrong:
                problem = f"--storage {without_credentials(storage)}: {wrong}"
                return answer | {"problem": problem}
    except ImportError as error:
        return answer | {"problem": f"lorasweep cannot run there ({first_line(error)}); install it as here"}
    except TimeoutError:
        shown = without_credentials(question.storage or "")
        problem = f"--storage {shown}: has not answered there in {STORAGE_SECONDS} s"
        return answer | {"problem": problem}
    except LorasweepError as error:
        return answer | {"problem": str(error)}
    found = look(question.on_gpus)
    return answer | {"problem": found.problem, "hardware": found}


def _try_base_model(base: BaseModel, expected: str) -> None:
    try:
        with quiet_loading():
            load_tokenizer(base)
            empty_model(base)
        check_weights(base)
        check_reachable(base)
        files = fingerprint(base)
    except (LorasweepError, OSError) as error:
        raise SettingsError(
            f"base model {base.location} cannot be read there ({first_line(error)}); copy it to the same place"
        ) from error
    if files != expected:
        raise SettingsError(
            f"another base model lies at {base.location} there; copy this machine's to the same place"
        )


def in_time(call: Callable[[], Result], seconds: float) -> Result:
    """Call a function that may never return, in a thread that does not keep the process alive.

    Raises:
        TimeoutError: it has not returned in time.
        Exception: what it raised.
    """
    raised: list[BaseException] = []
    results: list[Result] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="lorasweep-probe", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    if raised:
        raise raised[0]
    return results[0]


# What runs in a Ray worker on each node.
ask: Callable[[Question], dict[str, Any]] = try_node


def probe_nodes(
    wanted: ResourceSettings,
    nodes: Sequence[Node],
    bases: Sequence[BaseModel],
    quantize: Quantize | None = None,
) -> Probed:
    """Try on each node of a cluster that may hold a trial, on all at once, what a trial needs there.

    Args:
        wanted: with the address of the cluster, which has been joined; without one nobody is asked.
        nodes: all of them.
        bases: all base models that trials may have.
        quantize: how they are stored.

    Raises:
        SettingsError: the storage cannot be used from here, or a node can hold no trial; one line names it with the
            reason.
    """
    if wanted.address is None:
        return Probed()
    asked, on_gpus = could_train(nodes, wanted.gpus_per_trial)
    if not asked:  # they are still to join
        return Probed({})
    packages = package_versions() | {"python": platform.python_version()}
    storage = wanted.storage
    with marked(storage) if storage is not None else nullcontext() as mark:
        files = tuple((base, fingerprint(base)) for base in bases)
        question = Question(packages, files, storage, mark, on_gpus, quantize)
        answers = _ask_all(asked, question)
    gone = frozenset(node.id for node in asked) - answers.keys()
    asked = tuple(node for node in asked if node.id in answers)
    names = node_names()
    called = {node.id: names.get(node.id or "", str(node.id)) for node in asked}
    problems = [(called[key], answer["problem"]) for key, answer in answers.items() if answer["problem"]]
    if problems:
        raise SettingsError(
            f"--address {wanted.address}: {len(problems)} of {len(asked)} nodes cannot train: {_told(problems)}. Mend "
            "that, or take the node out of the cluster; on it: ray stop"
        )
    notes = version_notes([(called[key], answer["packages"]) for key, answer in answers.items()], packages)
    return Probed({key: answer["hardware"] for key, answer in answers.items()}, tuple(notes), gone)


def _told(problems: Iterable[tuple[str, str]]) -> str:
    """Which nodes have which problem, on one line; nodes with the same one together."""
    by_problem: dict[str, list[str]] = {}
    for node, problem in problems:
        by_problem.setdefault(" ".join(problem.split()), []).append(node)
    told = [f"{_named(nodes)}: {problem}" for problem, nodes in by_problem.items()]
    more = len(told) - MOST_NAMED
    return "; ".join(told[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _named(nodes: Sequence[str]) -> str:
    more = len(nodes) - MOST_NAMED
    return ", ".join(nodes[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def version_notes(nodes: Sequence[tuple[str, Mapping[str, str]]], here: Mapping[str, str]) -> list[str]:
    """Packages of which nodes have another version than this machine, a sentence each.

    Args:
        nodes: each with its packages and their versions.
    """
    notes = []
    for package in (*PACKAGES, "python"):
        other: dict[str, list[str]] = {}
        for node, packages in nodes:
            if packages.get(package) != here.get(package):
                other.setdefault(str(packages.get(package)), []).append(node)
        notes += [
            f"{_named(names)}: {package} {version}, and {here.get(package)} here; scores may differ between nodes"
            for version, names in other.items()
        ]
    return notes


def _ask_all(nodes: Sequence[Node], question: Question) -> dict[str | None, dict[str, Any]]:
    """Each node's answer, by Ray's id. One that does not answer in time, or cannot, has that as its problem.

    None of a node that is lost: for some seconds after its end Ray counts it among those that are there.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # As in `hardware.py`: no GPU of its own, and a process that ends after the answer.
    options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0, "max_calls": 1, "max_retries": 0}
    tasks = {
        ray.remote(**options)(ask)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False))
        .remote(question): node.id
        for node in nodes
    }
    done, waiting = ray.wait(list(tasks), num_returns=len(tasks), timeout=ANSWER_SECONDS)
    late = {"packages": {}, "problem": f"it has not answered in {ANSWER_SECONDS} s; see there: ray status"}
    answers = {tasks[task]: late for task in waiting}
    for task in waiting:
        ray.cancel(task, force=True)
    for task in done:
        answer = _answer(task)
        if answer is not None:
            answers[tasks[task]] = answer
    return {node.id: answers[node.id] for node in nodes if node.id in answers}


def _answer(task: Any) -> dict[str, Any] | None:
    """What a node has answered; None where it is lost."""
    import ray
    from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError

    try:
        answer: dict[str, Any] = ray.get(task)
        return answer
    except (NodeDiedError, TaskUnschedulableError):
        # A task that needs no resources lacks nothing but its node.
        return None
    except RayError as error:
        return {"packages": {}, "problem": _why(error)}
    except Exception as error:  # the node's own, which this version may not know
        return {
            "packages": {},
            "problem": f"lorasweep cannot run there ({first_line(error)}); install it as here",
        }


def _why(error: Exception) -> str:
    """Why a node could not even be asked, from Ray's error, whose last line is Python's own."""
    cause = getattr(error, "cause", None) or error
    lines: Iterable[str] = [line.strip() for line in str(cause).splitlines() if line.strip()]
    told = next((line for line in reversed(list(lines)) if "Error" in line), first_line(cause))
    return f"lorasweep cannot run there ({told[:160]}); install it as here"
