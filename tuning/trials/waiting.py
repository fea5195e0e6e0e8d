"""Says what trials wait for that do not start, and who has it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from lorasweep.tuning.trials.recorder import ray_trial_name
from lorasweep.tuning.trials.shares import node_slots

# Seconds without a trial's start after which it is said why, and between two looks.
PATIENCE = 30.0
# More nodes or jobs would not be read.
NAMED = 3
LONGEST_NAME = 40
# A placement group's bundles as Ray counts them: it has its resources, or not.
CREATED = "CREATED"


@dataclass(frozen=True)
class Room:
    """What a node has, and what of it is free, by Ray's count.

    Attributes:
        name: the node's address.
    """

    name: str
    cpus: float
    gpus: float = 0.0
    free_cpus: float = 0.0
    free_gpus: float = 0.0


@dataclass(frozen=True)
class Holder:
    """A job of the cluster and what its actors and placement groups hold.

    Attributes:
        name: how it was started.
        own: it is this sweep.
        parts: how many of them hold something.
    """

    name: str
    cpus: float
    gpus: float = 0.0
    own: bool = False
    parts: int = 1


def waiting_text(
    waiting: Sequence[str],
    running: int,
    cpus: float,
    gpus: float,
    rooms: Sequence[Room],
    holders: Sequence[Holder],
) -> str:
    """What trials wait for, and who has it; one line.

    Args:
        waiting: ids of the trials that have not started.
        running: how many of the sweep have.
        cpus, gpus: that each of them needs on one node.
    """
    who = f"{_list(waiting)} {'waits' if len(waiting) == 1 else 'wait'} for {_amount(cpus, gpus)}"
    able = [room for room in rooms if node_slots(room.cpus, room.gpus, cpus, gpus)]
    if not able:
        there = "no node" if not rooms else "the only node has not" if len(rooms) == 1 else "no node has"
        return f"{who}: {there} {'yet' if not rooms else 'that much'}; see: ray status"
    own = sum(holder.parts for holder in holders if holder.own)
    if own >= running + len(waiting):
        return f"{who}: reserved; the processes are starting, and their first imports can take a minute"
    free = [room for room in able if node_slots(room.free_cpus, room.free_gpus, cpus, gpus)]
    if free:
        return f"{who}: {free[0].name} has that free, and Ray is about to start there; see: ray status"
    text = f"{who}: {_list([_free(room, gpus > 0) for room in able])}"
    others = [holder for holder in holders if not holder.own and (holder.cpus or holder.gpus)]
    others.sort(key=lambda holder: (-holder.gpus, -holder.cpus))
    held = [f"{_short(holder.name)} ({_amount(holder.cpus, holder.gpus)})" for holder in others]
    if held:
        return f"{text}; {_list(held)} {'has' if len(held) == 1 else 'have'} it"
    # Ray does not tell whose tasks run.
    return f"{text}; other tasks of the cluster have it: see: ray status"


class StartWatch(tune.Callback):
    """Tells when trials have waited for half a minute, what for, and who has it; nothing once one starts.

    Ray is asked in a thread of its own: it does not answer where the cluster's head is gone.

    Args:
        tell: called with the line; with an empty one as soon as a trial starts.
        cpus, gpus: of a trial.
        look: what the cluster's nodes have, and who holds it.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        cpus: float,
        gpus: float,
        look: Callable[[], tuple[list[Room], list[Holder]]] | None = None,
    ) -> None:
        self._tell, self._cpus, self._gpus = tell, cpus, gpus
        self._look = look or look_at_cluster
        self._since: float | None = None
        self._told = self._answer = ""
        self._thread: threading.Thread | None = None

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has started: whoever still waits does so since now."""
        self._begin_anew()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ray Tune has looked what there is to do, as it does ten times a second."""
        waiting = [ray_trial_name(trial) for trial in trials if trial.status == Trial.PENDING]
        if not waiting:
            self._begin_anew()
            return
        if self._answer:
            self._say(self._answer)
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since < PATIENCE or (self._thread is not None and self._thread.is_alive()):
            return
        # The next look is as far away.
        self._since = now
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        asked = (waiting, running, now)
        self._thread = threading.Thread(target=self._ask, args=asked, name="waiting", daemon=True)
        self._thread.start()

    def _ask(self, waiting: Sequence[str], running: int, asked: float) -> None:
        try:
            rooms, holders = self._look()
        except Exception:  # Ray's tables are its own; without an answer there is nothing to say
            return
        if self._since == asked:
            self._answer = waiting_text(waiting, running, self._cpus, self._gpus, rooms, holders)

    def _begin_anew(self) -> None:
        self._since, self._answer = None, ""
        self._say("")

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell(text)

    def __getstate__(self) -> dict[str, Any]:
        # As the recorder: Ray pickles its callbacks for a restore of its own.
        return {}


def look_at_cluster() -> tuple[list[Room], list[Holder]]:
    """The living nodes of the cluster that this process has joined, and the jobs that hold something of them.

    Ray's own interface for this needs its dashboard. So the head's tables are read; what they do not tell is left out.
    """
    import ray
    from ray._private import state

    free = state.available_resources_per_node()
    rooms = []
    for node in ray.nodes():
        if node["Alive"]:
            has, left = node["Resources"], free.get(node["NodeID"], {})
            counts = (source.get(name, 0.0) for source in (has, left) for name in ("CPU", "GPU"))
            rooms.append(Room(node["NodeManagerAddress"], *counts))
    return rooms, _holders(state.state, ray.get_runtime_context().get_job_id())


def _holders(state: Any, own: str) -> list[Holder]:
    from ray.core.generated.gcs_pb2 import ActorTableData, PlacementGroupTableData

    accessor = state._connect_and_get_accessor()
    held: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(job: str, resources: Sequence[Any]) -> None:
        cpus, gpus = (sum(part.get(name, 0.0) for part in resources) for name in ("CPU", "GPU"))
        if cpus or gpus:
            held[job] = [sum(pair) for pair in zip(held[job], (cpus, gpus, 1), strict=True)]

    for row in accessor.get_placement_group_table():
        group = PlacementGroupTableData.FromString(row)
        if PlacementGroupTableData.PlacementGroupState.Name(group.state) == CREATED:
            add(group.creator_job_id.hex(), [bundle.unit_resources for bundle in group.bundles])
    # Actors in a placement group need parts of it, under names of their own.
    for row in accessor.get_actor_table(None, "ALIVE"):
        actor = ActorTableData.FromString(row)
        add(actor.job_id.hex(), [actor.required_resources])
    started = {job["JobID"]: job["Entrypoint"] for job in state.job_table()}
    return [
        Holder(started.get(job) or f"job {job}", cpus, gpus, job == own, int(parts))
        for job, (cpus, gpus, parts) in held.items()
    ]


def _free(room: Room, on_gpus: bool) -> str:
    text = f"{room.name} has {room.free_cpus:g} of {room.cpus:g} cores"
    return f"{text} and {room.free_gpus:g} of {room.gpus:g} GPUs free" if on_gpus else f"{text} free"


def _amount(cpus: float, gpus: float) -> str:
    cores = f"{cpus:g} {'core' if cpus == 1 else 'cores'}" if cpus or not gpus else ""
    return " and ".join(filter(None, [f"{gpus:g} GPU" if gpus else "", cores]))


def _list(parts: Sequence[str]) -> str:
    named = [*parts[:NAMED], *([f"{len(parts) - NAMED} more"] if len(parts) > NAMED else [])]
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
