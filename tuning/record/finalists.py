"""The two kinds of trials of a search on a part of the rows: those that search, and the finalists on all rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials


def on_same_rows(one: TrialRecord, other: TrialRecord) -> bool:
    """Whether both were trained and judged on the same rows: finalists on all, of a search on a part the others not."""
    return (one.finalist_of is None) == (other.finalist_of is None)


def comparable(ranked: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The best of ranked trials, and those that were judged on the same rows."""
    return [trial for trial in ranked if on_same_rows(trial, ranked[0])]


def searched_trials(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials that the search proposed, without the finalists."""
    return [trial for trial in trials if trial.finalist_of is None]


def finalists(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials that train the best settings of a search on a part of the rows on all rows."""
    return [trial for trial in trials if trial.finalist_of is not None]


def finalist_id(trial: TrialRecord) -> str:
    """The id of the finalist that a search trial becomes."""
    return f"{trial.id}-full"


def choose_finalists(trials: Iterable[TrialRecord], metric: Metric, count: int) -> list[TrialRecord]:
    """The search trials whose settings are trained on all rows: so many of the best, and the known-good start.

    Of trials with equal settings one counts: the start, or the better one. The start is always among them, as the
    winner is compared with it, and as what wins on a part need not win on the whole.
    """
    distinct: list[TrialRecord] = []
    for trial in rank_trials(searched_trials(trials), metric):
        same = [
            place for place, other in enumerate(distinct) if other.hyperparameters == trial.hyperparameters
        ]
        if not same:
            distinct.append(trial)
        elif trial.start == 1:
            distinct[same[0]] = trial
    chosen = distinct[:count]
    return chosen + [trial for trial in distinct[count:] if trial.start == 1]


def expected_finalists(trials: Sequence[TrialRecord], metric: Metric, count: int) -> set[str]:
    """Ids of the finalists that there are, and of those that follow if the search ends with these trials."""
    chosen = {finalist_id(trial) for trial in choose_finalists(trials, metric, count)}
    return chosen | {trial.id for trial in finalists(trials)}
