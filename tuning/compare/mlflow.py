"""A comparison in MLflow: a parent run with the tables, a child a row."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence

from lorasweep.tuning.compare.record import COSTS, ComparedRow, CompareSettings, ComparisonFolder
from lorasweep.tuning.record.folder import now
from lorasweep.tuning.tracking.entries import ERROR, NOTES, STATE, params_of
from lorasweep.tuning.tracking.runs import EXPERIMENT, SweepRuns, identity_of
from lorasweep.tuning.tracking.store import artifact_root, hide_passwords, quiet, reason

log = logging.getLogger("lorasweep")


def publish(
    folder: ComparisonFolder,
    settings: CompareSettings,
    rows: Sequence[ComparedRow],
    files: Mapping[str, bytes],
    uri: str,
) -> bool:
    """Fill MLflow with what it lacks of a comparison; whether it now has all of it.

    Args:
        files: the parent's artifacts by name.
        uri: a store that `prepare_store` has passed.
    """
    try:
        with quiet():
            _publish(folder, settings, rows, files, uri)
    except Exception as error:  # stores raise errors of their own; the comparison itself is done and on disk
        where, why = hide_passwords(uri), reason(error)
        log.warning("MLflow at %s takes no records (%s); the same command sends them again", where, why)
        return False
    return True


def _publish(
    folder: ComparisonFolder,
    settings: CompareSettings,
    rows: Sequence[ComparedRow],
    files: Mapping[str, bytes],
    uri: str,
) -> None:
    identity = identity_of(folder.path)
    runs = SweepRuns(
        uri, EXPERIMENT, artifact_root(folder.mlruns), folder.name, identity, kinds=("comparison", "row")
    )
    parent = runs.parent(min((row.started for row in rows), default=now()))
    ended = max((row.ended for row in rows), default=now())
    for row in rows:
        run = runs.trial(row.plan.id, row.started)
        notes = {NOTES: row.plan.about, ERROR: row.error, STATE: "failed" if row.error else "completed"}
        runs.send(run, params_of({"precision": row.precision, **row.plan.settings.model_dump()}), notes)
        runs.send_metrics(run, row_metrics(row), row.ended)
        runs.set_status(run, "FAILED" if row.error else "FINISHED", row.ended)
    runs.send(parent, params_of(settings.model_dump(mode="json")), {STATE: "finished"})
    version = hashlib.sha256(b"".join(files.values())).hexdigest()
    if files:
        runs.send_report(parent, files, version)
    runs.set_status(parent, "FINISHED", ended)


def row_metrics(row: ComparedRow) -> dict[str, float]:
    """All figures of a row by names that MLflow takes."""
    if row.test is None:
        return {}
    found = {f"test/{name}": value for name, value in row.test.model_dump().items()}
    if row.merged is not None:
        found |= {f"merged_after/{name}": value for name, value in row.merged.model_dump().items()}
    for name, (low, high) in row.interval.items():
        found |= {f"test/{name}_low": low, f"test/{name}_high": high}
    found |= {key: float(getattr(row, key)) for key in COSTS}
    if row.validation_score is not None:
        found["score"] = row.validation_score
    for entry in row.latencies:
        found[f"latency_ms/{entry.form}_{entry.precision}_{entry.batch}"] = entry.median
        found[f"latency_ms/{entry.form}_{entry.precision}_{entry.batch}_p95"] = entry.p95
    for use in row.operators:
        key = re.sub(r"\W+", "_", use.name).strip("_")
        found |= {f"step_ms/{key}": use.milliseconds, f"step_mb/{key}": use.megabytes}
    return found
