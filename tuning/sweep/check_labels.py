"""Checks the training labels of a finished sweep: the winner's settings, trained on folds, predict the other rows."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.folds import fold_of_rows
from lorasweep.training.errors import SettingsError, SweepStoppedError, TrainingError
from lorasweep.tuning.record.files import hold
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.label_check import (
    CheckSettings,
    LabelCheck,
    done_folds,
    read_label_check,
    write_fold,
)
from lorasweep.tuning.record.reported import is_disk_full
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.words import duration
from lorasweep.tuning.sweep import start
from lorasweep.tuning.sweep.winner.steps import reason

log = logging.getLogger("lorasweep")

LOCK = "label_check.lock"


def check_labels(
    folder: SweepFolder, folds: int = 5, phase: Callable[[str], None] = lambda text: None
) -> LabelCheck:
    """Train the winner's hyperparameters on folds of the training rows and find the labels that they contradict.

    The folds are stratified; the rows of a group stay together. They run in Ray with the sweep's resources, as many
    at a time as its trials. Each fold is written when it is done, so the same call goes on after an interruption.

    Args:
        folds: each row is predicted by one of so many trainings.
        phase: called with the present step.

    Raises:
        SettingsError: the sweep has not finished, its texts have several labels each, or `folds` does not fit its rows;
            another process checks it.
        TrainingError: a fold failed. The others are on record.
        SweepStoppedError: the cluster has lost its head.
    """
    record = SweepRecord(folder)
    _, winner = record.won("check its labels with", finished=True)
    again = folder.command("check-labels", *(["--folds", str(folds)] if folds != 5 else []))
    data = Dataset.load(folder.data)
    if data.multi_label:
        raise SettingsError(
            f"sweep {folder.name}: its texts have several labels each, and a check is of one label a text; see the "
            f"report's table of labels: {folder.command('report')}"
        )
    fold = _folds(data, folds, record.config.training.seed)
    settings = CheckSettings(
        trial=winner.id,
        hyperparameters=winner.hyperparameters,
        folds=folds,
        fingerprint=data.fingerprint,
    )
    busy = f"sweep {folder.name}: another process is checking its labels; wait for it"
    with hold(folder.path / LOCK, busy):
        done = done_folds(folder, settings)
        missing = {number: np.flatnonzero(fold == number) for number in range(folds) if number not in done}
        if missing:
            phase("checking data and model")
            _predict(folder, settings, missing, phase, again)
    found = read_label_check(folder, data)
    assert found is not None
    return found


def _folds(data: Dataset, folds: int, seed: int) -> np.ndarray:
    """The fold of each training row; int64, shape (rows,)."""
    groups = data.train.group
    if data.group_column and groups is None:
        log.warning(
            "the sweep was made by a version that did not keep the groups (%s): rows of a group may lie in several "
            "folds, and a wrong label that they share is not found",
            data.group_column,
        )
    return fold_of_rows(data.train.labels, folds, seed, groups)


def _predict(
    folder: SweepFolder,
    settings: CheckSettings,
    missing: dict[int, np.ndarray],
    phase: Callable[[str], None],
    again: str,
) -> None:
    """Train and predict the folds that are missing, and write each.

    Args:
        missing: fold → numbers of its training rows.
        again: the command that goes on.
    """
    prepared = start.existing(folder, folder.config())
    import ray

    from lorasweep.tuning.sweep.plan.plan import trial_setup
    from lorasweep.tuning.sweep.run import STOPPED
    from lorasweep.tuning.sweep.winner.after_trials import predict_fold
    from lorasweep.tuning.trials.cluster import head_address, start_ray, stop_ray
    from lorasweep.tuning.trials.head import head_watched
    from lorasweep.tuning.trials.remote import RemoteCall

    def give_up(stopped: SweepStoppedError) -> None:
        # The main thread hangs, and Ray will end the process.
        print(f"lorasweep: {stopped}", file=sys.stderr, flush=True)
        os._exit(STOPPED)

    plan, failed = prepared.plan, dict[int, str]()
    address, resources = plan.config.resources.address, plan.resources
    rounds = -(-len(missing) // resources.concurrency)
    try:
        start_ray(address, resources.cpus, resources.gpus)
        head = None if address is None else head_address()
        with head_watched(head, folder.name, again, give_up):
            data, setup = ray.put(plan.encoded), trial_setup(plan, resources)
            calls: dict[Any, tuple[RemoteCall, int]] = {}
            for number, rows in missing.items():
                call = RemoteCall(resources, predict_fold, settings.hyperparameters, rows, data, setup)
                calls[call.task] = (call, number)
            about = _about(folder, settings, rounds)
            while calls:
                done = settings.folds - len(calls) - len(failed)
                phase(f"{done} of {settings.folds} folds predicted, {resources.concurrency} at a time{about}")
                (task,), _ = ray.wait(list(calls))
                call, number = calls.pop(task)
                try:
                    logits = call.result()
                except Exception as error:
                    if is_disk_full(error):
                        raise
                    failed[number] = reason(error)
                    log.debug("why fold %d failed", number, exc_info=True)
                    continue
                write_fold(folder, number, missing[number], logits)
    finally:
        stop_ray()
    if failed:
        number, why = next(iter(failed.items()))
        raise TrainingError(
            f"sweep {folder.name}: fold {number + 1} of {settings.folds} of the label check failed ({why}); the others "
            f"are on record. Fix that, then: {again}"
        )


def _about(folder: SweepFolder, settings: CheckSettings, rounds: int) -> str:
    """How long the folds train by the winner's own training, in words; empty where that did not run to its end."""
    trial = next((one for one in folder.trials() if one.id == settings.trial), None)
    if trial is None or trial.state != "completed":
        return ""
    seconds = rounds * trial.seconds * (settings.folds - 1) / settings.folds
    return f"; about {duration(seconds)} of training"
