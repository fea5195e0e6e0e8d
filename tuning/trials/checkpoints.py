"""Writes, opens and removes checkpoints.

Ray writes them to the storage and removes none: which trials can still win, and which checkpoints other runs of the
sweep have left, it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from ray import tune
from safetensors import SafetensorError

from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import NOT_FINITE
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.training.scores.outcomes import Outcomes
from lorasweep.tuning.record.files import write_bytes
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import OUTCOMES_FILE, has_outcomes, outcome_bytes
from lorasweep.tuning.record.reported import BEST_FILE, DEVICE, OBJECTIVE, PRECISION, PROBE_FILE, RUNG, SCORE
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.storage.filesystem import filesystem_at, is_uri
from lorasweep.tuning.storage.storage import Storage

# Each checkpoint holds the logits of this many validation rows: exports are compared with them.
PROBE_ROWS = 64


def prune(storage: Storage, trials: Sequence[TrialRecord], contenders: Collection[str]) -> list[TrialRecord]:
    """Remove the checkpoints of trials that ended as far as they are no longer needed.

    A trial keeps its best checkpoint if it can still win, else none. One that broke keeps its last one, too, from
    which it is tried again.

    Args:
        contenders: ids of the trials that can still be chosen.

    Returns:
        The changed records, without the removed paths.
    """
    changed = []
    for trial in trials:
        if trial.state == "running":
            continue
        broke = trial.state == "failed" and NOT_FINITE not in (trial.error or "")
        update = {
            "checkpoint": trial.checkpoint if trial.id in contenders else None,
            "last_checkpoint": trial.last_checkpoint if broke else None,
        }
        tidy = trial.model_copy(update=update)
        if tidy != trial:
            storage.remove(_checkpoints(trial) - _checkpoints(tidy))
            changed.append(tidy)
    return changed


def remove_replaced(storage: Storage, before: TrialRecord, after: TrialRecord) -> None:
    """Remove the checkpoints that a trial had and no longer needs, once its record says so."""
    storage.remove(_checkpoints(before) - _checkpoints(after))


def remove_left(storage: Storage, trials: Sequence[TrialRecord]) -> None:
    """Remove what no record names: checkpoints of processes that died before these were recorded."""
    with suppress(OSError):  # it costs space only
        storage.remove_others(path for trial in trials for path in _checkpoints(trial))


def _checkpoints(trial: TrialRecord) -> set[str]:
    return {path for path in (trial.checkpoint, trial.last_checkpoint) if path is not None}


def without_lost(storage: Storage, trial: TrialRecord) -> TrialRecord:
    """A trial's record without a last checkpoint that somebody has removed: it begins anew."""
    if trial.last_checkpoint is None or storage.has(trial.last_checkpoint):
        return trial
    return trial.model_copy(update={"last_checkpoint": None})


def open_checkpoint(path: str | None, storage: str | None) -> tune.Checkpoint | None:
    """The checkpoint at a recorded path: on this machine, or on the sweep's shared storage.

    Args:
        storage: `--storage` of the sweep, if any.
    """
    if path is None:
        return None
    if storage is None or not is_uri(storage):
        return tune.Checkpoint(path)
    filesystem, _ = filesystem_at(storage)
    return tune.Checkpoint(path, filesystem=filesystem)


def keep_outcomes(folder: SweepFolder, storage: Storage, trial: TrialRecord) -> None:
    """Copy the best evaluation's outcomes of the validation rows into the sweep's folder, where they outlive it.

    What cannot be copied is left out: trials are then compared by their scores' own errors.
    """
    if trial.checkpoint is None:
        return
    path = folder.outcomes(trial.id)
    for name in (PROBE_FILE, OUTCOMES_FILE):
        with suppress(OSError, SafetensorError):
            with storage.filesystem.open_input_stream(f"{trial.checkpoint}/{name}") as file:
                content = file.read()
            if has_outcomes(content):
                path.parent.mkdir(exist_ok=True)
                write_bytes(path, content)
                return


def write_checkpoint(
    state: TrainingState,
    evaluation: Evaluation,
    outcomes: Outcomes,
    best: Best,
    objective: Best,
    folder: Path,
) -> None:
    """Write all that the trial needs to continue, the logits that exports are compared with, and the outcomes of the
    validation rows.

    Args:
        best, objective: the best evaluations so far, by the metric and by what stops trials.
    """
    state.save(folder)
    known = {SCORE: best.score, RUNG: best.rung, OBJECTIVE: objective.score}
    ran_in = {PRECISION: state.amp.name, DEVICE: state.amp.device.type}
    (folder / BEST_FILE).write_text(json.dumps(known | ran_in))
    probe = outcome_bytes(outcomes, evaluation.rung, evaluation.logits[:PROBE_ROWS])
    (folder / PROBE_FILE).write_bytes(probe)
