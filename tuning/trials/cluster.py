"""Start Ray on this machine, or join a cluster."""

from __future__ import annotations

import logging
import os
import sys
import threading

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.quiet import quiet_driver
from lorasweep.tuning.trials.head import answers
from lorasweep.tuning.trials.interrupt import hold_interrupt
from lorasweep.tuning.trials.joining import check_address, join_cluster

# For a cluster whose head is gone; Ray would wait for it.
LEAVE_SECONDS = 5
# A socket's path has at most 107 bytes (103 on macOS), of which Ray's session and the socket's name take 64:
# /session_2026-01-31_12-59-59_123456_1234567/sockets/plasma_store
LONGEST_FOLDER = (103 if sys.platform == "darwin" else 107) - 64
# Whether the Ray of this process is ours to end.
_started = False


def start_ray(address: str | None, cpus: int | None = None, gpus: float | None = None) -> None:
    """Start Ray on this machine without its dashboard, or join a running cluster; once per process.

    A Ray that the caller's program has started itself is used as it is.

    Raises:
        SettingsError: the cluster at `address` cannot be joined.
    """
    import ray

    global _started
    if address is not None:
        check_address(address)
    if ray.is_initialized():
        return
    _started = True
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        join_cluster(address, **quiet)
        quiet_driver()
        return
    try:
        with hold_interrupt():
            # Without "local", Ray would join a cluster named in the environment.
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus or None,
                include_dashboard=False,
                _temp_dir=_short_folder(),
                **quiet,
            )
        quiet_driver()
    except OSError as error:
        if error.filename is None:
            raise
        raise SettingsError(
            f"{error.filename}: Ray cannot write there ({error.strerror}); name another folder with RAY_TMPDIR"
        ) from error


def _short_folder() -> str | None:
    """A folder for Ray where its own would be too long for the paths of its sockets, as in the jobs of SLURM."""
    from ray._common.utils import get_default_ray_temp_dir

    if sys.platform == "win32" or len(os.fsencode(get_default_ray_temp_dir())) <= LONGEST_FOLDER:
        return None
    # One for each user. It stays, as Ray's own does: Ray's logs lie there.
    return f"/tmp/ray-{os.getuid()}"


def head_address() -> str:
    """`host:port` of the head of the cluster that was joined."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def stop_ray() -> None:
    """End the Ray that `start_ray` started, or leave the cluster that it joined, if need be without a good-bye."""
    import ray

    global _started
    if _started and ray.is_initialized():
        # A head that is gone is not told.
        if answers(head_address()):
            ray.shutdown()
        else:
            leaving = threading.Thread(target=ray.shutdown, name="leaving", daemon=True)
            leaving.start()
            leaving.join(LEAVE_SECONDS)
    _started = False
