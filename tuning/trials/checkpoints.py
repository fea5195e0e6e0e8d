"""Writes, opens and removes checkpoints.

Ray keeps the best and the last checkpoint of each running trial, and a third while writing it. It does not know about
other runs of the sweep, or which trials can still win: `prune` removes what is no longer needed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow.fs
from ray import tune
from safetensors.numpy import save_file

from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import NOT_FINITE
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.reported import BEST_FILE, DEVICE, OBJECTIVE, PRECISION, PROBE_FILE, RUNG, SCORE
from lorasweep.tuning.record.results import TrialRecord

# Each checkpoint holds the logits of this many validation rows: exports are compared with them.
PROBE_ROWS = 64
CHECKPOINT = "checkpoint_"


def prune(
    folder: SweepFolder, trials: Sequence[TrialRecord], contenders: Collection[str], storage: str | None
) -> list[TrialRecord]:
    """Remove checkpoints that are no longer needed.

    A trial that ended keeps its best checkpoint if it can still win, else none. One that broke keeps its last one,
    too, from which it is tried again. A running trial keeps what its record names of earlier runs; Ray manages those
    of the present run.

    Args:
        contenders: ids of the trials that can still be chosen.
        storage: `--storage` of the sweep, if any.

    Returns:
        The changed records of trials that ended, without the removed paths.
    """
    filesystem, root = storage_of(folder, storage)
    runs = sorted(
        (
            entry.path
            for entry in filesystem.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True))
            if entry.type == pyarrow.fs.FileType.Directory and entry.base_name.startswith("run-")
        ),
        key=_number,
    )
    changed = []
    for trial in trials:
        running = trial.state == "running"
        best = trial.checkpoint if running or trial.id in contenders else None
        broke = trial.state == "failed" and NOT_FINITE not in (trial.error or "")
        last = trial.last_checkpoint if running or broke else None
        tidy = trial.model_copy(update={"checkpoint": best, "last_checkpoint": last})
        if tidy == trial and not running:
            continue  # pruned before
        for run in runs[:-1] if running else runs:
            selector = pyarrow.fs.FileSelector(f"{run}/{trial.id}", allow_not_found=True)
            for entry in filesystem.get_file_info(selector):
                needed = entry.path in (tidy.checkpoint, tidy.last_checkpoint)
                if entry.base_name.startswith(CHECKPOINT) and not needed:
                    filesystem.delete_dir(entry.path)
        if not running:
            changed.append(tidy)
    return changed


def storage_of(folder: SweepFolder, storage: str | None) -> tuple[pyarrow.fs.FileSystem, str]:
    """File system and path of the folder that holds a sweep's `run-N` folders."""
    if storage is None:
        return pyarrow.fs.LocalFileSystem(), str(folder.ray.resolve())
    if "://" not in storage:
        return pyarrow.fs.LocalFileSystem(), f"{Path(storage).resolve()}/{folder.name}"
    filesystem, path = pyarrow.fs.FileSystem.from_uri(storage)
    return filesystem, f"{path}/{folder.name}"


def _number(run: str) -> int:
    number = run.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def without_lost(folder: SweepFolder, trial: TrialRecord, storage: str | None) -> TrialRecord:
    """A trial's record without a last checkpoint that somebody has removed: it begins anew."""
    if trial.last_checkpoint is None:
        return trial
    filesystem, _ = storage_of(folder, storage)
    there = filesystem.get_file_info(trial.last_checkpoint).type == pyarrow.fs.FileType.Directory
    return trial if there else trial.model_copy(update={"last_checkpoint": None})


def open_checkpoint(path: str | None, storage: str | None) -> tune.Checkpoint | None:
    """The checkpoint at a recorded path: on this machine, or on the sweep's shared storage."""
    if path is None:
        return None
    if storage is None or "://" not in storage:
        return tune.Checkpoint(path)
    filesystem, _ = pyarrow.fs.FileSystem.from_uri(storage)
    return tune.Checkpoint(path, filesystem=filesystem)


def write_checkpoint(
    state: TrainingState, evaluation: Evaluation, best: Best, objective: Best, folder: Path
) -> None:
    """Write all that the trial needs to continue, and the logits that exports are compared with.

    Args:
        best, objective: the best evaluations so far, by the metric and by what stops trials.
    """
    state.save(folder)
    known = {SCORE: best.score, RUNG: best.rung, OBJECTIVE: objective.score}
    ran_in = {PRECISION: state.amp.name, DEVICE: state.amp.device.type}
    (folder / BEST_FILE).write_text(json.dumps(known | ran_in))
    save_file({"logits": evaluation.logits[:PROBE_ROWS]}, folder / PROBE_FILE)
