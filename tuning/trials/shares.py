"""Share the cores and GPUs of one machine or a cluster among trials."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorasweep.training.devices import CONTEXT_BYTES, Card
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import ResourceSettings
from lorasweep.tuning.trials.hardware import Node

log = logging.getLogger("lorasweep")

# With more trials at once, the sampler would propose most of them before it has results to learn from.
DEFAULT_CONCURRENCY = 4
# A trial on a GPU gains little from more threads.
GPU_TRIAL_CPUS = 4
# Python's thread starts the kernels of the forward pass, and autograd's those of the backward pass.
SHARED_GPU_TRIAL_CPUS = 2
# Ray counts a GPU in so many parts.
RAY_PARTS = 10_000
GIGABYTE = 1e9


@dataclass(frozen=True)
class Resources:
    """What each trial of a sweep gets.

    Attributes:
        cpus, gpus: of the machine or the whole cluster.
        cpus_per_trial: cores reserved by a trial, and its number of threads.
        gpus_per_trial: GPUs, or a fraction of one.
        concurrency: trials at the same time.
    """

    cpus: int
    gpus: float
    cpus_per_trial: int
    gpus_per_trial: float
    concurrency: int

    def fit(self, nodes: Sequence[Node]) -> bool:
        """Whether a node has room for a trial; a cluster that grows may have none yet."""
        return _slots(nodes, self.cpus_per_trial, self.gpus_per_trial) > 0

    def growth_note(self, nodes: Sequence[Node]) -> str | None:
        """A sentence on a cluster that holds fewer trials than may run at once; None where it holds them all."""
        now = _slots(nodes, self.cpus_per_trial, self.gpus_per_trial)
        if now >= self.concurrency:
            return None
        if now:
            return (
                f"the cluster holds {now} of {self.concurrency} trials at once now; more start as nodes join"
            )
        each = f"{self.cpus_per_trial} {'core' if self.cpus_per_trial == 1 else 'cores'}"
        if self.gpus_per_trial:
            each = f"{self.gpus_per_trial:g} GPU and {each}"
        return f"the cluster has no room for a trial yet; trials start as nodes with {each} join"


@dataclass(frozen=True)
class GpuShare:
    """The share of a GPU that a trial gets where none is asked for, and why; one line."""

    gpus: float
    reason: str


def default_share(
    settings: ResourceSettings,
    trials: int,
    nodes: Sequence[Node],
    cards: Sequence[Card],
    trial_bytes: int | None,
) -> GpuShare:
    """The largest number of trials on each GPU that its memory, the cores and the search allow, as a share.

    Args:
        trials: of the sweep.
        cards: the GPUs; at least one.
        trial_bytes: memory of the largest trial, without CUDA's own; None where it cannot be foreseen.
    """
    if trial_bytes is None:
        return GpuShare(1.0, "a whole GPU each: what a trial takes of its memory cannot be foreseen")
    with_gpus = [node for node in nodes if node.gpus and node.cpus]
    gpus = sum(node.gpus for node in with_gpus)
    at_once = min(settings.concurrency or max(DEFAULT_CONCURRENCY, gpus), trials)
    wanted = math.ceil(at_once / gpus) if settings.concurrency else at_once // gpus
    cores = settings.cpus_per_trial or (1 if settings.concurrency else SHARED_GPU_TRIAL_CPUS)
    by_cores = min(node.cpus // node.gpus // cores for node in with_gpus)
    memory, needed = min(card.memory for card in cards), trial_bytes + CONTEXT_BYTES
    count = max(1, min(wanted, by_cores, memory // needed))
    reason = f"a trial may take {needed / GIGABYTE:.1f} GB of a GPU's {memory / GIGABYTE:.0f} GB"
    if needed > memory:
        reason += ", and then computes a batch in parts"
    elif count < wanted and by_cores < memory // needed:
        reason += f"; more on a GPU would need {cores} {'core' if cores == 1 else 'cores'} each"
    # Ray rounds to its parts: six shares of 0.16667 would be more than a GPU.
    return GpuShare(RAY_PARTS // count / RAY_PARTS, reason)


def resolve_resources(
    settings: ResourceSettings,
    trials: int,
    nodes: Sequence[Node],
    gpu_share: float = 1.0,
    coming: Sequence[Node] | None = None,
) -> Resources:
    """Share cores and GPUs so that the trials on a node never have more threads than it has cores.

    Args:
        trials: of the sweep.
        gpu_share: of a trial, where the settings name none and there are GPUs.
        coming: kinds of nodes that may join a cluster; None for this machine. A cluster may have more trials at once
            than it holds now, and no cores yet.

    Raises:
        SettingsError: the settings need more than there is.
    """
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    gpus_per_trial = check_resources(settings, nodes, gpu_share, coming)
    most = _slots(nodes, settings.cpus_per_trial or 1, gpus_per_trial)
    at_once = (most if gpus_per_trial else min(most, DEFAULT_CONCURRENCY)) or DEFAULT_CONCURRENCY
    concurrency = min(settings.concurrency or at_once, trials)
    if concurrency > most and coming is None:
        raise _too_many(concurrency, settings, nodes, gpus_per_trial)
    cpus_per_trial = settings.cpus_per_trial or 1
    if settings.cpus_per_trial is None and most:
        largest = GPU_TRIAL_CPUS if gpus_per_trial else max(node.cpus for node in nodes)
        shares, now = range(largest, 0, -1), min(concurrency, most)
        cpus_per_trial = next(c for c in shares if _slots(nodes, c, gpus_per_trial) >= now)
    if (settings.concurrency or 0) > trials:
        log.warning(
            "concurrency %d: the sweep has %d trials, so no more run at once", settings.concurrency, trials
        )
    return Resources(cpus, float(gpus), cpus_per_trial, gpus_per_trial, concurrency)


def check_resources(
    settings: ResourceSettings,
    nodes: Sequence[Node],
    gpu_share: float = 1.0,
    coming: Sequence[Node] | None = None,
) -> float:
    """Refuse what no node can give one trial; returns its GPUs.

    Args:
        coming: as for `resolve_resources`.

    Raises:
        SettingsError: no node has so many cores or GPUs.
    """
    share, cores = settings.gpus_per_trial, settings.cpus_per_trial
    if share is None:
        share = gpu_share if any(node.gpus for node in nodes) else 0.0
    if share > 1 and share != int(share):
        raise SettingsError(f"--gpus-per-trial {share:g}: take a whole number, or a fraction below 1")
    if coming is not None:
        nodes = [*nodes, *coming]
        if not any(node.cpus for node in nodes):
            # Nobody knows what will join.
            return settings.gpus_per_trial or 0.0
    cpus, gpus = max(node.cpus for node in nodes), max(node.gpus for node in nodes)
    there = "there are" if len(nodes) == 1 else "no node has more than"
    if share > gpus:
        raise SettingsError(
            f"--gpus-per-trial {share:g}: {there} {gpus:g} GPUs; ask for at most that, or 0 to train on CPU cores"
        )
    if cores is not None and cores > cpus:
        raise SettingsError(f"--cpus-per-trial {cores}: {there} {cpus} cores; ask for at most that")
    if cores is None and not _slots(nodes, 1, share):
        raise SettingsError(
            "--address: the nodes with GPUs have no cores, and a trial needs one; start them with: ray start "
            "--num-cpus, or train on the others: --gpus-per-trial 0"
        )
    if cores is not None and not _slots(nodes, cores, share):
        raise SettingsError(
            f"--cpus-per-trial {cores}: no node with {share:g} free GPUs has so many cores; lower one of them"
        )
    return share


def _too_many(
    concurrency: int, settings: ResourceSettings, nodes: Sequence[Node], gpus_per_trial: float
) -> SettingsError:
    """The error that says which of GPUs and cores are too few for so many trials at once."""
    asked, cores = f"--concurrency {settings.concurrency}", settings.cpus_per_trial
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    by_node = "" if len(nodes) == 1 else f" on {len(nodes)} nodes"
    if gpus_per_trial and concurrency > (
        on_gpus := sum(gpu_slots(node.gpus, gpus_per_trial) for node in nodes)
    ):
        return SettingsError(
            f"{asked}: {gpus:g} GPUs{by_node} hold {on_gpus} trials of {gpus_per_trial:g} each; "
            "lower it or --gpus-per-trial"
        )
    if cores is None:
        return SettingsError(
            f"{asked}: each trial needs a core, and there are {cpus}{by_node}; ask for at most "
            f"{_slots(nodes, 1, gpus_per_trial)}"
        )
    return SettingsError(
        f"{asked}: {concurrency} trials of --cpus-per-trial {cores} need {cores * concurrency} cores, and there "
        f"are {cpus}{by_node}, for {_slots(nodes, cores, gpus_per_trial)} trials; lower one of them"
    )


def _slots(nodes: Sequence[Node], cpus_per_trial: int, gpus_per_trial: float) -> int:
    """Trials that run at once: each has its cores and GPUs on one node."""
    return sum(node_slots(node.cpus, node.gpus, cpus_per_trial, gpus_per_trial) for node in nodes)


def node_slots(cpus: float, gpus: float, cpus_per_trial: float, gpus_per_trial: float) -> int:
    """Trials that a node with so many cores and GPUs can run at once."""
    slots = int(cpus // cpus_per_trial)
    return min(slots, gpu_slots(gpus, gpus_per_trial)) if gpus_per_trial else slots


def gpu_slots(gpus: float, gpus_per_trial: float) -> int:
    """Trials that fit on a node's GPUs. A fraction stays on one GPU: two GPUs hold two trials of 0.6."""
    if gpus_per_trial >= 1:
        return int(gpus / gpus_per_trial)
    return int(gpus) * int(1 / gpus_per_trial + 1e-9)
