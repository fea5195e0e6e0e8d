"""Which nodes fail, how long a trial waits before it is tried again, and which nodes it avoids."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from lorasweep.tuning.record.reported import AVOID
from lorasweep.tuning.trials.faults import Fault, NodeError

# Seconds before each further try of a trial: together, three minutes. A storage that is away for one is outlived.
PAUSES = (2.0, 5.0, 15.0, 30.0, 60.0, 60.0)
# Keys of a trial's configuration: seconds that it waits before it begins, and why it is not tried again, where Ray
# would.
PAUSE, GIVEN_UP = "pause", "given_up"
Result = TypeVar("Result")
# Ray's label of a node that holds its id.
NODE_LABEL = "ray.io/node-id"


class NodeWatch:
    """Counts failures in a row by node and by trial.

    A node that has failed is avoided for as long as its count says, and one more trial then shows whether it works
    again. Where all nodes fail none is avoided, and trials only wait. Nor is a node for the storage's sake, unless a
    trial has got on elsewhere meanwhile: a trial that waits for one node does not take another that works again.

    Args:
        able: returns Ray's ids of the nodes that are there and could hold a trial.
        clock: seconds that only grow.
    """

    def __init__(
        self, able: Callable[[], Collection[str]] = tuple, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._able, self._clock = able, clock
        self._by_node: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._by_trial: dict[str, int] = {}
        # When a node's failures in a row began, and when a trial last got on there.
        self._since: dict[str, float] = {}
        self._well: dict[str, float] = {}

    def failed(self, trial: str, fault: Fault) -> float | None:
        """Count a failure.

        Args:
            trial: the trial's id.

        Returns:
            Seconds for which the trial waits before it is tried again; None where it has used up its tries.
        """
        tries = self._by_trial[trial] = self._by_trial.get(trial, 0) + 1
        if fault.node_id:
            now, node = self._clock(), fault.node_id
            count = self._by_node[node] = self._by_node.get(node, 0) + 1
            since = self._since.setdefault(node, now)
            elsewhere = any(other != node and when > since for other, when in self._well.items())
            if elsewhere or not fault.shared:
                self._until[node] = now + 2 * sum(PAUSES[:count])
        return PAUSES[tries - 1] if tries <= len(PAUSES) else None

    def went_well(self, trial: str, node: str | None) -> None:
        """A trial has got on: both it and its node begin anew."""
        self._by_trial.pop(trial, None)
        if node is not None:
            self._by_node.pop(node, None)
            self._until.pop(node, None)
            self._since.pop(node, None)
            self._well[node] = self._clock()

    def tries(self, trial: str) -> int:
        """How often a trial has failed in a row because of a node."""
        return self._by_trial.get(trial, 0)

    def avoided(self) -> tuple[str, ...]:
        """Ray's ids of the nodes on which no trial is to start now; never all that could hold one."""
        now = self._clock()
        bad = {node for node, until in self._until.items() if until > now}
        if not bad:
            return ()
        able = set(self._able())
        return tuple(sorted(bad & able)) if not able <= bad else ()

    def none_left(self, avoided: Collection[str]) -> bool:
        """Whether no node is left for a trial that waits for one of the others."""
        return bool(avoided) and set(self._able()) <= set(avoided)

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles it with the searcher, for its own restore; a sweep resumes from its records instead.
        return {}


def patiently(call: Callable[[], Result]) -> Result:
    """Call a function again, after pauses that grow, as long as it raises `NodeError`.

    Raises:
        NodeError: it has raised it each time.
    """
    for pause in PAUSES:
        try:
            return call()
        except NodeError:
            time.sleep(pause)
    return call()


def placement(config: dict[str, Any], cpus: float, gpus: float) -> Any:
    """Ray's request for a trial's resources, by its configuration: on any node but those that it avoids."""
    from ray.tune import PlacementGroupFactory

    avoid = config.get(AVOID) or ()
    labels = {"bundle_label_selector": [{NODE_LABEL: f"!in({', '.join(avoid)})"}]} if avoid else {}
    return PlacementGroupFactory([{"CPU": cpus, "GPU": gpus}], **labels)


def able_nodes(cpus: float, gpus: float) -> set[str]:
    """Ray's ids of the nodes that are there and have a trial's cores and GPUs, busy or not."""
    import ray

    return {
        str(node["NodeID"])
        for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("CPU", 0) >= cpus
        and node["Resources"].get("GPU", 0) >= gpus
    }
