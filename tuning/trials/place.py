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


def node_names() -> dict[str, str]:
    """Ray's id of a node → its name for people, of all nodes that the cluster has had; none outside Ray."""
    import ray

    names: dict[str, str] = {}
    if not ray.is_initialized():
        return names
    for node in ray.nodes():
        host, address = str(node.get("NodeManagerHostname", "")), str(node.get("NodeManagerAddress", ""))
        names[str(node["NodeID"])] = host if host == address or not address else f"{host} ({address})"
    return names
