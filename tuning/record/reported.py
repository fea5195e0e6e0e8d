"""Names in what a trial reports to Ray Tune and keeps in its checkpoints, and how a full disk is recognised."""

from __future__ import annotations

import re

RUNG = "rung"
ERROR = "error"
BEST_RUNG = "best_rung"
DISK_FULL = "the disk is full"
# So begins the error of a trial that failed because of the node on which it ran.
NODE_FAILED = "failure of node"
# The messages of the operating system, SQLite, Rust libraries (safetensors) and Arrow.
NO_SPACE = re.compile(
    rf"No space left on device|disk is full|os error 28\b|Errno 28\b|Disk quota exceeded|{DISK_FULL}", re.I
)
# The running best of the metric, in every record and report.
SCORE = "score"
# The running best of what stops trials and guides the sampler; the same where that is the metric.
OBJECTIVE = "objective"
# In a trial's configuration: Ray's ids of the nodes on which it is not to run.
AVOID = "avoid"
# Files of a checkpoint: logits of the first validation rows, with which exports are compared, beside the outcomes of
# all rows (see `outcomes.py`); and a JSON of the best evaluation so far with what the trial ran in.
PROBE_FILE = "probe.safetensors"
BEST_FILE = "best.json"
PRECISION = "precision"
DEVICE = "device"
# What a trial ran on, in its reports, and Ray's id of its node.
RAN_ON = "ran_on"
NODE_ID = "ray_node"


def is_disk_full(error: BaseException | str | None) -> bool:
    """Whether an error, or one of its causes, says that a device has no space left."""
    while error is not None and not isinstance(error, str):
        if NO_SPACE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return bool(error and NO_SPACE.search(error))
