"""How long training takes on a GPU or a node of a cluster: a Ray worker with a trial's resources times a few steps."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.loop.pace import Pace, measure_pace
from lorasweep.training.model.precision import resolve_precision
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.trials.cluster import start_ray
from lorasweep.tuning.trials.remote import RemoteCall
from lorasweep.tuning.trials.trial import TrialSetup, leave_worker, prepare_worker, worker_base

if TYPE_CHECKING:
    from lorasweep.tuning.trials.shares import Resources

# A worker imports torch and loads the base model first. Where others have all of a cluster, no sweep waits for this.
ANSWER_SECONDS = 60
# Rows of each split that travel to the worker; their lengths stand for all.
ROWS = 5000

log = logging.getLogger("lorasweep")


def pace_on_node(
    address: str | None,
    resources: Resources,
    data: EncodedDataset,
    setup: TrialSetup,
    hyperparameters: Hyperparameters,
) -> Pace | None:
    """Seconds that a row takes in a trial, on any node that has room for one.

    Ray is started, or joined, and stays for the sweep.

    Args:
        address: of the cluster; None for this machine's GPUs.
        resources: of the trials.

    Returns:
        None if no node has answered in a minute, or training fails there; a trial would say why.
    """
    import ray

    start_ray(address, resources.cpus, resources.gpus)
    call = RemoteCall(resources, time_steps, _some_rows(data), setup, hyperparameters)
    done, _ = ray.wait([call.task], timeout=ANSWER_SECONDS)
    if not done:
        ray.cancel(call.task, force=True)
        return None
    try:
        pace: Pace = ray.get(call.task)
    except Exception:  # the node's, or the model's own code, which raises whatever it likes
        log.debug("no steps were timed", exc_info=True)
        return None
    return pace


def time_steps(data: EncodedDataset, setup: TrialSetup, hyperparameters: Hyperparameters) -> Pace:
    """The pace of a trial in this worker, which is set up as for one."""
    device = prepare_worker(setup)
    try:
        settings = setup.training_settings
        amp = resolve_precision(settings.precision, device, setup.base.model_type)
        with quiet_loading():
            loaded = worker_base(setup.base, data.label_names, settings, amp)
            return measure_pace(loaded, data, hyperparameters, settings, amp, setup.threads)
    finally:
        leave_worker(setup.gpu_share)


def _some_rows(data: EncodedDataset) -> EncodedDataset:
    """Evenly spaced rows of each split, all where they are few, in the tokens of the sweep's own base model."""
    return replace(
        data, train=_some(data.train), validation=_some(data.validation), test=_some(data.test), by_base={}
    )


def _some(texts: EncodedTexts) -> EncodedTexts:
    return texts.take(np.arange(0, len(texts), -(-len(texts) // ROWS))) if len(texts) > ROWS else texts
