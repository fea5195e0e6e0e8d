"""What trials find where they run: the cores and GPUs of each node, by Ray's count, and what torch can do with them.

The process that plans a sweep may have no GPU, or another one than the nodes of the cluster: so the nodes are asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lorasweep.training.amp_types import AMP_TYPES, Precision
from lorasweep.training.devices import Card, cards, count_cards, reserved_device
from lorasweep.training.errors import SettingsError, first_line
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.tuning.record.machine import usable_cores
from lorasweep.tuning.trials.cluster import start_ray

# A worker's first imports can take a minute where packages lie on a network's disk.
ANSWER_SECONDS = 180


@dataclass(frozen=True)
class Node:
    """A machine on which trials may run.

    Attributes:
        cpus, gpus: as many as Ray gives away.
        id: Ray's; None for this machine.
    """

    cpus: int
    gpus: int
    id: str | None = None


@dataclass(frozen=True)
class NodeAnswer:
    """What a process on a node says of it.

    Attributes:
        cards: the node's GPUs; empty where trials run on CPU cores.
        precisions: types that all of its devices multiply in hardware.
        problem: why torch cannot use its GPUs, or None.
    """

    cards: tuple[Card, ...] = ()
    precisions: tuple[Precision, ...] = ()
    problem: str | None = None


def look(on_gpus: bool) -> NodeAnswer:
    """What torch can use of the machine on which this process runs, without a memory of its own on a GPU."""
    found = tuple(cards()) if on_gpus else ()
    if on_gpus and not found:
        try:
            reserved_device(1.0)
        except SettingsError as error:
            return NodeAnswer(problem=str(error))
    device = torch.device("cuda" if on_gpus else "cpu")
    names = (name for name, amp_type in AMP_TYPES.items() if amp_type.in_hardware(device, found))
    return NodeAnswer(found, tuple(names))


# What each node is asked; it runs in a Ray worker there.
ask: Callable[[bool], NodeAnswer] = look


@dataclass(frozen=True)
class Hardware:
    """What the trials of a sweep may use.

    Attributes:
        nodes: all machines.
        cards: the GPUs of all nodes, if trials run on GPUs; else empty.
        precisions: types that the devices of all nodes on which trials may run multiply in hardware.
    """

    nodes: tuple[Node, ...]
    cards: tuple[Card, ...]
    precisions: tuple[Precision, ...]

    @property
    def device(self) -> torch.device:
        """The device of a trial, in its own process."""
        return torch.device("cuda" if self.cards else "cpu")

    @property
    def names(self) -> str:
        """The GPUs, such as `8 × NVIDIA L4`; `cpu` where trials run on cores."""
        counts = Counter(card.name for card in self.cards)
        return (
            ", ".join(f"{count} × {name}" if count > 1 else name for name, count in counts.items()) or "cpu"
        )

    def precision(self, asked: Precision, model_type: str) -> AmpPolicy:
        """The precision of all trials. `auto` becomes what every device has in hardware.

        Raises:
            SettingsError: the devices or the model type cannot do what is asked for.
        """
        amp = resolve_precision(asked, self.device, model_type, self.cards)
        family = MODEL_FAMILIES.get(model_type)
        if asked != "auto" or self.cards or (family is not None and family.fp32_only):
            return amp
        return AmpPolicy(self.precisions[0], self.device)

    def notes(self, asked: Precision, amp: AmpPolicy) -> list[str]:
        """What the user should know of unequal GPUs, or of a precision that they lack, a sentence each."""
        notes = []
        if len({card.name for card in self.cards}) > 1:
            why = "which all of them have in hardware" if asked == "auto" else "as asked for"
            notes.append(f"the GPUs differ ({self.names}): all trials run in {amp.name}, {why}")
        if self.cards and amp.name not in self.precisions:
            lacking = {
                card.name for card in self.cards if not AMP_TYPES[amp.name].in_hardware(amp.device, (card,))
            }
            notes.append(
                f"precision {amp.name}: emulated, and slow, on {', '.join(sorted(lacking))}; "
                f"{self.precisions[0]} would be faster"
            )
        return notes


def find_nodes(address: str | None) -> tuple[Node, ...]:
    """This machine, or the machines of the cluster at `address`, which is joined.

    A cluster may have no cores yet: an autoscaler adds nodes when trials wait for them.

    Raises:
        SettingsError: the cluster cannot be joined.
    """
    if address is None:
        return (Node(usable_cores(), count_cards()),)
    import ray

    start_ray(address)
    counted = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return tuple(Node(int(has.get("CPU", 0)), int(has.get("GPU", 0)), number) for number, has in counted)


def coming_nodes(address: str | None) -> tuple[Node, ...] | None:
    """Kinds of nodes that the autoscaler of a joined cluster may add, as far as it tells; None on this machine."""
    if address is None:
        return None
    from ray._private.state import state

    try:
        config = state.get_cluster_config()
    except Exception:  # Ray's own interface between its parts
        return ()
    # A group of -1 nodes has no limit.
    groups = [group for group in config.node_group_configs if group.max_count] if config else []
    return tuple(Node(int(group.resources["CPU"]), int(group.resources["GPU"])) for group in groups)


def find_hardware(
    address: str | None,
    nodes: tuple[Node, ...],
    gpus_per_trial: float | None = None,
    known: Mapping[str | None, NodeAnswer] | None = None,
) -> Hardware:
    """Ask the nodes on which trials may run what torch can do there.

    Args:
        address: of the cluster, which has been joined; None for this machine.
        nodes: from `find_nodes`; at least one can hold a trial.
        gpus_per_trial: 0 if trials run on CPU cores; if None they run on GPUs where there are any.
        known: Ray's id of a node → its answer, where the nodes have been asked.

    Raises:
        SettingsError: a node does not answer, or torch cannot use its GPUs.
    """
    asked, on_gpus = could_train(nodes, gpus_per_trial)
    if known is not None:
        answers = [known[node.id] for node in asked]
    else:
        answers = [ask(on_gpus)] if address is None else _answers(address, asked, on_gpus) if asked else []
    for answer in answers:
        if answer.problem is not None:
            raise SettingsError(
                answer.problem if address is None else f"--address {address}: {answer.problem}"
            )
    found = tuple(card for answer in answers for card in answer.cards)
    common = tuple(name for name in AMP_TYPES if all(name in answer.precisions for answer in answers))
    if not answers:  # no node yet: what every later one can do
        common = ("fp32",)
    return Hardware(nodes, found, common)


def could_train(nodes: Sequence[Node], gpus_per_trial: float | None = None) -> tuple[tuple[Node, ...], bool]:
    """The nodes on which trials may run, and whether these run on GPUs; arguments as in `find_hardware`."""
    on_gpus = gpus_per_trial != 0 and any(node.gpus for node in nodes)
    needed = max(1.0, gpus_per_trial or 0.0) if on_gpus else 0.0
    # A trial needs a core, too; the head often gives none away.
    return tuple(node for node in nodes if node.cpus and node.gpus >= needed), on_gpus


def _answers(address: str, nodes: Sequence[Node], on_gpus: bool) -> list[NodeAnswer]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Without a GPU of its own a process sees all of a node's, and does not wait for a busy one. It ends after
    # the answer, for CUDA would keep memory of the GPU.
    options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0, "max_calls": 1}
    tasks = [
        ray.remote(**options)(ask)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False))
        .remote(on_gpus)
        for node in nodes
    ]
    try:
        answers: list[NodeAnswer] = ray.get(tasks, timeout=ANSWER_SECONDS)
    except GetTimeoutError as error:
        _, waiting = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        for task in waiting:
            ray.cancel(task, force=True)
        raise SettingsError(
            f"--address {address}: {len(waiting)} of {len(tasks)} nodes have not said in {ANSWER_SECONDS} s what "
            "torch can use there; see: ray status"
        ) from error
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        raise SettingsError(
            f"--address {address}: a node cannot run lorasweep ({first_line(cause)}); install it there as here"
        ) from error
    return answers
