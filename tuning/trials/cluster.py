"""Start Ray on this machine or join a cluster, and share its cores and GPUs among trials."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import ResourceSettings
from lorasweep.tuning.record.machine import usable_cores

# With more trials at once, the sampler would propose most of them before it has results to learn from.
DEFAULT_CONCURRENCY = 4
# A trial on a GPU gains little from more threads.
GPU_TRIAL_CPUS = 4
# Ray itself keeps trying a dead address for minutes.
ANSWER_SECONDS = 10
# Whether the Ray of this process is ours to end.
_started = False


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


def find_resources(address: str | None) -> tuple[int, float]:
    """Number of cores and GPUs: of this machine, or of the cluster at `address`, which is joined.

    Raises:
        SettingsError: the cluster cannot be reached.
    """
    if address is None:
        import torch

        return usable_cores(), float(torch.cuda.device_count())
    import ray

    start_ray(address)
    total = ray.cluster_resources()
    return int(total.get("CPU", 0)), float(total.get("GPU", 0))


def resolve_resources(settings: ResourceSettings, trials: int, cpus: int, gpus: float) -> Resources:
    """Share cores and GPUs so that threads × concurrent trials never exceed the cores.

    Raises:
        SettingsError: the settings need more than there is.
    """
    if cpus < 1:
        raise SettingsError("--address: the cluster has no cores; start its nodes with: ray start --num-cpus")
    gpus_per_trial = settings.gpus_per_trial
    if gpus_per_trial is None:
        gpus_per_trial = 1.0 if gpus >= 1 else 0.0
    if gpus_per_trial > gpus:
        raise SettingsError(
            f"--gpus-per-trial {gpus_per_trial:g}: there are {gpus:g} GPUs; ask for at most that, "
            "or 0 to train on CPU cores"
        )
    if gpus_per_trial > 1 and gpus_per_trial != int(gpus_per_trial):
        raise SettingsError(
            f"--gpus-per-trial {gpus_per_trial:g}: take a whole number, or a fraction below 1"
        )
    if settings.cpus_per_trial is not None and settings.cpus_per_trial > cpus:
        raise SettingsError(
            f"--cpus-per-trial {settings.cpus_per_trial}: there are {cpus} cores; ask for at most that"
        )
    slots = gpu_slots(gpus, gpus_per_trial) if gpus_per_trial else min(cpus, DEFAULT_CONCURRENCY)
    concurrency = settings.concurrency or min(slots, cpus // (settings.cpus_per_trial or 1))
    concurrency = min(concurrency, trials)
    if gpus_per_trial and concurrency > slots:
        raise SettingsError(
            f"--concurrency {concurrency}: {gpus:g} GPUs hold {slots} trials of {gpus_per_trial:g} each; "
            "lower it or --gpus-per-trial"
        )
    share = max(1, cpus // concurrency)
    cpus_per_trial = settings.cpus_per_trial or (min(share, GPU_TRIAL_CPUS) if gpus_per_trial else share)
    if cpus_per_trial * concurrency > cpus:
        raise SettingsError(
            f"--concurrency {concurrency} with {cpus_per_trial} cores a trial needs "
            f"{cpus_per_trial * concurrency} cores, and there are {cpus}; lower one of them"
        )
    return Resources(cpus, gpus, cpus_per_trial, gpus_per_trial, concurrency)


def gpu_slots(gpus: float, gpus_per_trial: float) -> int:
    """Trials that fit on the GPUs. A fraction stays on one GPU: two GPUs hold two trials of 0.6."""
    if gpus_per_trial >= 1:
        return int(gpus / gpus_per_trial)
    return int(gpus) * int(1 / gpus_per_trial + 1e-9)


def start_ray(address: str | None, cpus: int | None = None, gpus: float | None = None) -> None:
    """Start Ray on this machine without its dashboard, or join a running cluster; once per process.

    A Ray that the caller's program has started itself is used as it is.

    Raises:
        SettingsError: the cluster at `address` cannot be reached.
    """
    import ray

    global _started
    if ray.is_initialized():
        return
    _started = True
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"--address {address}: no Ray cluster answers there ({str(error).splitlines()[0][:100]}); "
                "start one with: ray start --head, or set RAY_AUTH_MODE=token if it asks for a token"
            ) from error
        return
    # Without "local", Ray would join a cluster named in the environment.
    ray.init(address="local", num_cpus=cpus, num_gpus=gpus or None, include_dashboard=False, **quiet)


def _knock(address: str) -> None:
    """Raise `OSError` unless something listens at `host:port`; Ray checks other forms of an address."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


def stop_ray() -> None:
    """End the Ray that `start_ray` started, or leave the cluster that it joined."""
    import ray

    global _started
    if _started and ray.is_initialized():
        ray.shutdown()
    _started = False
