"""Runs a function in a Ray worker of its own: on another node where one cannot do it."""

from __future__ import annotations

import logging
from typing import Any

from lorasweep.tuning.record.reported import is_disk_full
from lorasweep.tuning.trials.faults import Fault, NodeError, NodeFailedError, fault_of, reason_of
from lorasweep.tuning.trials.node_watch import NODE_LABEL, able_nodes
from lorasweep.tuning.trials.place import node_names, this_place
from lorasweep.tuning.trials.shares import Resources
from lorasweep.tuning.trials.trial import leave_worker

log = logging.getLogger("lorasweep")


class RemoteCall:
    """A function that runs in a Ray worker with a trial's resources.

    Args:
        arguments: of the function; they may be object references.
    """

    def __init__(self, resources: Resources, function: Any, *arguments: Any) -> None:
        self._resources, self._function, self._arguments = resources, function, arguments
        self._failed: set[str] = set()
        self.task = self._start()

    def result(self) -> Any:
        """What the function returns, once it has.

        Where the node is to blame for its failure it is called again on another one.

        Raises:
            NodeError: it has failed on each node, or on one that is not known.
            RayTaskError: what the function raised, if the node is not to blame.
        """
        import ray

        while True:
            try:
                return ray.get(self.task)
            except Exception as error:
                fault = _node_fault(error)
                if fault is None:
                    raise
                self._failed.add(fault.node_id)
                able = able_nodes(self._resources.cpus_per_trial, self._resources.gpus_per_trial)
                if not fault.node_id or able <= self._failed:
                    raise NodeError(f"node {fault.node}: {fault.reason}") from error
                log.warning("%s; tried on another node", fault.line)
                self.task = self._start()

    def _start(self) -> Any:
        import ray

        resources = self._resources
        options: dict[str, Any] = {
            "num_cpus": resources.cpus_per_trial,
            "num_gpus": resources.gpus_per_trial,
            "max_retries": 2,
            # Ray ends a worker by itself only where `ray.remote` is told of the GPU, not `options`. One that stays
            # keeps memory of its GPU, and may be given another one, which it cannot change to.
            "max_calls": 1 if resources.gpus_per_trial else 0,
        }
        if self._failed:
            options["label_selector"] = {NODE_LABEL: f"!in({', '.join(sorted(self._failed))})"}
        return ray.remote(**options)(_on_node).remote(self._function, *self._arguments)


def run_alone(address: str | None, resources: Resources, function: Any, *arguments: Any) -> Any:
    """Run a function after the trials and return its result.

    Without a cluster it runs in this process, which saves a new worker's imports; in a cluster, where the resources
    are.

    Args:
        address: of the cluster, or None.
        arguments: of the function; they may be object references.
    """
    import ray

    if address is not None:
        return RemoteCall(resources, function, *arguments).result()
    try:
        return function(
            *(ray.get(value) if isinstance(value, ray.ObjectRef) else value for value in arguments)
        )
    finally:
        leave_worker(resources.gpus_per_trial)


def _on_node(function: Any, *arguments: Any) -> Any:
    """Call a function; a failure of the node says so, as a trial's does."""
    try:
        return function(*arguments)
    except Exception as error:
        reason = None if is_disk_full(error) else reason_of(error)
        if reason is None:
            raise
        raise NodeFailedError.at(this_place(), reason) from error


def _node_fault(error: Exception) -> Fault | None:
    """The node's failure in an error that a worker has raised; None where it is the function's own."""
    cause = getattr(error, "cause", None)
    if not isinstance(cause, NodeFailedError):
        return None
    return fault_of(f"{NodeFailedError.__name__}: {cause}", node_names())
