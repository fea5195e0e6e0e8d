"""Which trials are within noise of the winner."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lorasweep.training.scores.noise import FACTOR, paired_error
from lorasweep.training.settings import Metric
from lorasweep.tuning.record.finalists import on_same_rows
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import read_outcomes
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials


def near_trials(
    folder: SweepFolder,
    trials: Sequence[TrialRecord],
    winner: TrialRecord,
    metric: Metric,
    label_names: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Ids of the trials whose validation score cannot be told from the winner's, best first.

    A difference below `FACTOR` standard errors is what equal settings show in 95 of 100 pairs. The winner was chosen
    for a high score, so its lead is too large on average: among many trials, some beyond this bound are as good.
    Trials on other rows, such as those of a search on a part where the winner is a finalist, are left out; so are
    older records without standard errors.

    Args:
        label_names: for a metric that names one.
    """
    near = []
    for trial in rank_trials(trials, metric):
        if (
            trial.id == winner.id
            or not on_same_rows(trial, winner)
            or trial.score is None
            or winner.score is None
        ):
            continue
        error = _error(folder, trial, winner, metric, label_names)
        # Rounding: scores are sums of many parts.
        if error is not None and abs(trial.score - winner.score) <= FACTOR * error + 1e-9:
            near.append(trial.id)
    return tuple(near)


def _error(
    folder: SweepFolder, one: TrialRecord, other: TrialRecord, metric: Metric, label_names: tuple[str, ...]
) -> float | None:
    """Standard error of the difference of two trials' scores; paired where both have their rows' outcomes."""
    outcomes = [
        read_outcomes(folder.outcomes(trial.id), trial.best_rung, label_names) for trial in (one, other)
    ]
    if outcomes[0] is not None and outcomes[1] is not None and outcomes[0].same_rows(outcomes[1]):
        return paired_error(outcomes[0], outcomes[1], metric)
    if one.standard_error is None or other.standard_error is None:
        return None
    return math.hypot(one.standard_error, other.standard_error)
