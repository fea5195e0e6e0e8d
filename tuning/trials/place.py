"""The node on which a process runs, as Ray knows it."""

from __future__ import annotations

from dataclasses import dataclass

from lorasweep.tuning.record.ran_on import node_name


@dataclass(frozen=True)
class Place:
    """A node of the cluster.

    Attributes:
        id: Ray's; empty outside Ray.
        address: in the cluster; empty outside Ray.
    """

    id: str = ""
    address: str = ""

    @property
    def name(self) -> str:
        """The node for people: host name and address."""
        return node_name(self.address)


def this_place() -> Place:
    """The node on which this process runs."""
    import ray

    if not ray.is_initialized():
        return Place()
    return Place(str(ray.get_runtime_context().get_node_id()), str(ray.util.get_node_ip_address()))
