"""Silences the libraries, so that a sweep prints only its own lines."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# The libraries read these when they are imported. A user's own values stay.
ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # The profiler's lines about its own start and stop.
    "KINETO_LOG_LEVEL": "99",
    # Ray: no usage reports, no loggers of its own, no change of the working directory under a trial.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Else Ray starts a process for each core at once, and Tune's trials, whose environment differs, use none.
    "RAY_prestart_worker_first_driver": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's own state, which no resume reads, is written when a round begins and ends, not every ten seconds: on a
    # bucket all of its files are sent each time.
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    # Nor does it keep all that was reported with each checkpoint.
    "TUNE_ONLY_STORE_CHECKPOINT_SCORE_ATTRIBUTE": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Nor the stack of an error that nobody fetched, as of a trial that runs while the sweep is stopped.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Ray Tune asks the cluster's head for figures that it only prints, and so would hang where the head is gone;
    # `StartWatch` tells what trials wait for.
    "TUNE_STATE_REFRESH_PERIOD": "1e9",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1e9",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S_AUTOSCALER": "1e9",
    # A failed trial reports its error and no score.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # `clean_stop` handles Ctrl-C.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def quiet_environment() -> None:
    """Set the environment variables that silence libraries; call it before they are imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Of a faster inference kernel that it has not found; PEFT imports it whether it is used or not.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """Silence progress bars, load reports and warnings of the imported libraries."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in (
        "ray",
        "ray.tune",
        "ray.train",
        "ray.widgets",
        "optuna",
        "mlflow",
        "alembic",
        "peft",
        "bitsandbytes",
        "huggingface_hub",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Ray lists trials that did not complete, whose records say why, and complains when it cannot save its own
    # state, which no resume reads. The sweep reports a full disk itself.
    # Nor is it told by Ray, with the trial's whole result, that an old checkpoint is away with its storage.
    for name in (
        "ray.tune.tune",
        "ray.tune.execution.experiment_state",
        "ray.tune.execution.tune_controller",
        "ray.train._internal.storage",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore")


def quiet_driver() -> None:
    """Keep what Ray's servers report, such as the stack of a process that could not start, out of a sweep's display.

    Ray prints it whatever its loggers and `log_to_driver` say. It stays in Ray's logs; records say why a trial failed.
    """
    import ray._private.worker as worker

    # The switch by which Ray's own debugger keeps the terminal to itself.
    worker._worker_logs_enabled = False


@contextmanager
def silenced(names: Iterable[str]) -> Iterator[None]:
    """Silence these loggers and Python's warnings inside the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
