"""Failures of the place where a trial runs, told apart from those of its settings.

A base model or a storage that cannot be read, a missing package, a GPU or a machine that breaks: the same settings work
elsewhere, or later. A trial ends with a `NodeFailedError` then, whose message Ray hands to the driver as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lorasweep.training.devices import is_out_of_memory
from lorasweep.training.errors import LorasweepError, first_line
from lorasweep.tuning.record.reported import NODE_FAILED
from lorasweep.tuning.trials.place import Place

# What Ray's own storage says where the sweep's folder is missing.
NOT_SHARED = "Unable to set up cluster storage"
# And where it does not find the checkpoint of a trial that it restarts. `resume` does without one that is lost.
NOT_FOUND = "it does not exist on storage anymore"
# Of CUDA's errors these speak of the program, not of the GPU.
PROGRAMS_OWN = ("device-side assert", "illegal memory access", "misaligned address", "invalid argument")
# A frame of a traceback.
FRAME = re.compile(r'\s+File ".*", line \d+')
FAULT = re.compile(r"NodeFailedError: \[(?P<id>\w*)\] (?P<node>.+?): (?P<reason>.+)")
ADDRESS = re.compile(r"(?:^\s*ip: |, ip=)([^\s,]+)", re.M)
NODE_ID = re.compile(r"Node Id: (\w+)")


class NodeError(LorasweepError):
    """What any trial needs does not work on this node."""


class NodeFailedError(Exception):
    """Ends a trial because of the node on which it runs. Ray hands it on as text, which `fault_of` reads."""

    @classmethod
    def at(cls, place: Place, reason: str) -> NodeFailedError:
        """The fault of a node.

        Args:
            reason: what does not work there, on one line.
        """
        return cls(f"[{place.id}] {place.name}: {reason}")


@dataclass(frozen=True)
class Fault:
    """A node's failure as the driver learns of it.

    Attributes:
        node_id: Ray's id of the node; empty where it is not known.
        node: its name for people.
        reason: one line.
    """

    node_id: str
    node: str
    reason: str

    @property
    def shared(self) -> bool:
        """Whether it may be the storage that has failed, for all nodes, and not this node."""
        return "storage" in self.reason

    @property
    def line(self) -> str:
        """The failure on one line, as records keep it."""
        return f"{NODE_FAILED} {self.node}: {self.reason}"


def reason_of(error: Exception) -> str | None:
    """Why the node is to blame for an error in a trial, on one line; None where it may be the settings.

    A full disk, which stops the sweep at once, and memory that has run out are looked for before.
    """
    if isinstance(error, NodeError):
        return str(error)
    if isinstance(error, ImportError):
        return f"a package is missing or broken ({first_line(error)})"
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {first_line(error)}"
    text = str(error)
    cuda = isinstance(error, RuntimeError) and "CUDA" in text and "error" in text
    if cuda and not is_out_of_memory(error) and not any(words in text for words in PROGRAMS_OWN):
        return f"the GPU failed ({first_line(error)})"
    return None


def fault_of(report: str, names: Mapping[str, str]) -> Fault | None:
    """The node's failure that ended a trial; None where it was the trial's own.

    Args:
        report: Ray's text about the failure: a traceback, or how the trial's process died.
        names: Ray's id of a node → its name for people.
    """
    if match := FAULT.search(report):
        return Fault(match["id"], match["node"], match["reason"].strip()[:300])
    line = error_line(report)
    address = ADDRESS.search(report)
    at = address.group(1) if address else ""
    if match := NODE_ID.search(report):
        node = match.group(1)
        return Fault(node, names.get(node) or at or node, "the machine was lost, or its Ray ended")
    # Not by its address alone, which several nodes of one machine share.
    found = [key for key, name in names.items() if at and (name == at or name.endswith(f"({at})"))]
    node = found[0] if len(found) == 1 else ""
    named = names.get(node) or at or "(unknown)"
    if NOT_FOUND in report:
        return Fault(node, named, "a checkpoint cannot be read from the storage")
    if "actor is temporarily unavailable" in report or "ActorUnavailableError" in report:
        return Fault(node, named, "it could not be reached for a while")
    if "raised in its creation task" in report or line.startswith(("ModuleNotFoundError", "ImportError")):
        return Fault(node, named, f"a trial's process could not start ({line[:200]})")
    return None


def last_failure(text: str) -> str:
    """The last of the failures that Ray has written into a trial's error file."""
    return re.split(r"^Failure # \d+ .*$", text, flags=re.M)[-1].strip("\n")


def error_line(report: str) -> str:
    """What broke a trial, on one line; Ray's log of the trial has all of it.

    Args:
        report: Ray's error file: a traceback, or how the trial's process died.
    """
    lines = report.splitlines()
    frames = [number for number, line in enumerate(lines) if FRAME.match(line)]
    if frames:
        # The exception stands below the source lines of the last frame, without their indent.
        raised = [line for line in lines[frames[-1] + 1 :] if line.strip() and not line.startswith(" ")]
        if raised:
            return raised[0][:500]
    if "actor died" in report or "actor is dead" in report:
        return (
            "its process died; the system may have killed it for lack of memory: lower --concurrency, "
            "or see Ray's log of the trial"
        )
    rest = [line for line in lines if line.strip() and not line.startswith("Failure #")]
    return rest[0][:500] if rest else "the trial ended without saying why; its process may have been killed"
