"""Names under which a trial reports, and what its failures are recognised by."""

from __future__ import annotations

import re

RUNG = "rung"
ERROR = "error"
BEST_RUNG = "best_rung"
DISK_FULL = "the disk is full"
# As the system, SQLite, Rust's libraries (safetensors) and Arrow say it.
NO_SPACE = re.compile(
    rf"No space left on device|disk is full|os error 28\b|Errno 28\b|Disk quota exceeded|{DISK_FULL}", re.I
)
# The name of a trial's best evaluation so far, in every record and report.
SCORE = "score"


def is_disk_full(error: BaseException | str | None) -> bool:
    """Whether an error, or one behind it, is that of a device without space."""
    while error is not None and not isinstance(error, str):
        if NO_SPACE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return bool(error and NO_SPACE.search(error))
