"""A comparison in MLflow: a parent run with the tables, and a child run for each row."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress

from lorasweep.tuning.compare.record import ComparedRow, CompareSettings, ComparisonFolder
from lorasweep.tuning.record.trial_records import now
from lorasweep.tuning.tracking.entries import ERROR, NOTES, STATE, params_of
from lorasweep.tuning.tracking.runs import EXPERIMENT, SweepRuns, identity_of
from lorasweep.tuning.tracking.store import (
    StoreAwayError,
    artifact_root,
    hide_passwords,
    prepare_store,
    quiet,
    reason,
)

log = logging.getLogger("lorasweep")


def publish(
    folder: ComparisonFolder,
    settings: CompareSettings,
    rows: Sequence[ComparedRow],
    files: Mapping[str, bytes],
    uri: str,
) -> bool:
    """Send a comparison to MLflow, except what it already holds. A store that fails costs a warning.

    Args:
        files: artifacts of the parent run, by name.

    Returns:
        Whether MLflow holds all of it now.
    """
    started = min((row.started for row in rows), default=now())
    ended = max((row.ended for row in rows), default=now())
    try:
        with suppress(StoreAwayError):
            prepare_store(uri, folder.mlruns)
        with quiet():
            runs = SweepRuns(
                uri, EXPERIMENT, artifact_root(folder.mlruns), folder.name, identity_of(folder.path),
                kinds=("comparison", "row"),
            )  # fmt: skip
            parent = runs.parent(started)
            for row in rows:
                run = runs.trial(row.plan.id, row.started)
                state = "failed" if row.error else "completed"
                params = {"precision": row.precision, **row.plan.hyperparameters.model_dump()}
                runs.send(run, params_of(params), {NOTES: row.plan.about, ERROR: row.error, STATE: state})
                runs.send_metrics(run, row.figures(), row.ended)
                runs.set_status(run, "FAILED" if row.error else "FINISHED", row.ended)
            runs.send(parent, params_of(settings.model_dump(mode="json")), {STATE: "finished"})
            if files:
                runs.send_report(parent, files, hashlib.sha256(b"".join(files.values())).hexdigest())
            runs.set_status(parent, "FINISHED", ended)
    except Exception as error:  # a store raises its own kinds; the comparison itself is on disk
        where, why = hide_passwords(uri), reason(error)
        log.warning("MLflow at %s takes no records (%s); repeat the command to send them", where, why)
        return False
    return True
