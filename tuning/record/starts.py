"""The known-good start among a sweep's trials: the first settings that it tried."""

from __future__ import annotations

from collections.abc import Iterable

from lorasweep.tuning.record.finalists import on_same_rows
from lorasweep.tuning.record.trial_records import TrialRecord


def start_ids(trials: Iterable[TrialRecord]) -> list[str]:
    """Ids of the trials of the known-good start: the trial itself, and its finalist after a search on a part."""
    trials = list(trials)
    first = [trial.id for trial in trials if trial.start == 1]
    return list(dict.fromkeys(first + [trial.id for trial in trials if trial.finalist_of in first]))


def start_like(trials: Iterable[TrialRecord], winner: TrialRecord) -> TrialRecord | str | None:
    """The start's trial that can be compared with the winner, as it was trained on the same rows.

    Returns:
        The trial; why there is none to compare with; or None where the sweep has no known-good start.
    """
    trials = list(trials)
    ids = start_ids(trials)
    starts = [trial for trial in trials if trial.id in ids]
    if not starts:
        return None
    for trial in starts:
        if on_same_rows(trial, winner):
            return trial
    return f"{starts[0].id} was not trained on all rows"
