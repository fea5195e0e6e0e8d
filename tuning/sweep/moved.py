"""What may differ from run to run of a sweep: where it trains, on how much, and where MLflow is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lorasweep.tuning.record.config import SweepConfig, merge

# Place of a setting → what None means. `lorasweep resume` takes their options.
MOVABLE: dict[tuple[str, ...], str] = {
    ("resources", "address"): "this machine",
    ("resources", "concurrency"): "as many as fit",
    ("resources", "cpus_per_trial"): "what fits",
    ("resources", "gpus_per_trial"): "what fits",
    ("tracking_uri",): "the default",
}
# What Ray sets for the program of a job; both, as people set the address alone for other ends.
JOB_VARIABLES = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")
# Ray's word for the cluster that the environment names.
AUTO = "auto"


def moved_config(config: SweepConfig, entries: Mapping[str, Any]) -> SweepConfig:
    """A sweep's configuration for a run under other circumstances.

    Args:
        entries: changed settings as a nested mapping, only those of `MOVABLE`.

    Raises:
        SettingError: a value is not allowed.
    """
    return SweepConfig.build(merge(config.model_dump(mode="json"), dict(entries)), "settings")


def in_job(config: SweepConfig) -> tuple[SweepConfig, str]:
    """The configuration of a sweep that runs as a Ray job without an address of its own, and a note that says so.

    It joins the job's cluster: a second Ray would share its machine without knowing of it. Anywhere else nothing
    changes, and the note is empty.
    """
    cluster = os.environ.get(JOB_VARIABLES[0])
    if config.resources.address is not None or not all(map(os.environ.get, JOB_VARIABLES)):
        return config, ""
    # Not the address itself: another job that resumes the sweep may run in another cluster.
    joined = moved_config(config, {"resources": {"address": AUTO}})
    return joined, f"runs as a Ray job: it joins the job's cluster ({cluster})"


def moves(before: SweepConfig, after: SweepConfig) -> list[str]:
    """What differs between two runs of a sweep, such as `concurrency 4 instead of 2`."""
    from lorasweep.tuning.tracking.store import hide_passwords

    texts = []
    for place, none in MOVABLE.items():
        values = [config.model_dump(mode="json") for config in (before, after)]
        for key in place:
            values = [entries[key] for entries in values]
        if values[0] != values[1]:
            old, new = (none if value is None else hide_passwords(f"{value}") for value in values)
            texts.append(f"{place[-1].replace('_', ' ')} {new} instead of {old}")
    return texts
