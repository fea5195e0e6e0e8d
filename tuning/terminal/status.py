"""`lorasweep status`: a table of all sweeps, and sweeps as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from lorasweep.tuning.record.bases import base_entries
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import score_text


def sweeps_table(sweeps: Sequence[SweepRecord]) -> Table:
    """A row per sweep: state, trials, best validation score, test accuracy."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("sweep", "state", "trials", "best", "test accuracy"):
        table.add_column(column, justify="left" if column in ("sweep", "state") else "right", overflow="fold")
    for sweep in sweeps:
        best, winner = sweep.ranked()[:1], sweep.winner
        ended = sum(not trial.unfinished for trial in searched_trials(sweep.trials))
        table.add_row(
            escape(sweep.name),
            sweep.state,
            f"{ended}/{_asked(sweep) or len(searched_trials(sweep.trials))}",
            score_text(best[0].score if best else None, sweep.metric),
            f"{winner.test.accuracy:.1%}" if winner else "-",
        )
    return table


def listed_entries(sweep: SweepRecord) -> dict[str, Any]:
    """What the table of all sweeps shows of one, for `status --json`."""
    best, winner = sweep.ranked()[:1], sweep.winner
    started = [trial.started for trial in sweep.trials if trial.started]
    ended = [trial.ended for trial in sweep.trials if trial.ended]
    return {
        "name": sweep.name,
        "state": sweep.state,
        "metric": sweep.metric,
        "objective": sweep.objective,
        "score": best[0].score if best else None,
        "test_accuracy": winner.test.accuracy if winner else None,
        "trials_asked": _asked(sweep),
        "started": date_text(min(started, default=None)),
        "ended": date_text(max(ended, default=None)) if sweep.state != "running" else None,
    }


def _asked(sweep: SweepRecord) -> int | None:
    """The number of trials that were asked for; None where only the time ends the sweep."""
    return None if sweep.config.search.open else sweep.config.search.trials


def status_entries(sweep: SweepRecord) -> dict[str, Any]:
    """One sweep for `status --json`, under names that stay stable for other programs.

    Dates are of the first trial's start and the last one's end.
    """
    result = sweep.outcome()
    return {
        **listed_entries(sweep),
        "seconds": result.seconds,
        "base_model": sweep.config.base_model,
        "bases": base_entries(sweep),
        "data": {**sweep.config.data.model_dump(), **sweep.plan.get("data", {})},
        "trials": [_trial_entries(trial) for trial in sweep.trials],
        **result.model_dump(
            include={
                "winner",
                "start",
                "over_start",
                "over_untuned",
                "near",
                "unmerged",
                "untuned",
                "baselines",
                "confirmed",
                "choices",
                "registered",
                "stopped_by",
                "missing",
            }
        ),
    }


def _trial_entries(trial: TrialRecord) -> dict[str, Any]:
    ran_on = trial.best_ran_on or trial.ran_on
    more = {
        "error": trial.error,
        "stopped_by": trial.stopped_by,
        "finalist_of": trial.finalist_of,
        "ran_on": ran_on and ran_on.model_dump(exclude_none=True),
        "notes": list(trial.notes),
    }
    return {
        "id": trial.id,
        "state": trial.state,
        "score": trial.score,
        "settings": trial.hyperparameters.model_dump(),
        "trainable_parameters": trial.trainable_parameters,
        "seconds": trial.seconds,
        "started": date_text(trial.started or None),
        "ended": date_text(trial.ended),
        "start": trial.start,
        "evaluations": [
            evaluation.model_dump(exclude_none=True, exclude={"more"}) | evaluation.more
            for evaluation in trial.evaluations
        ],
    } | {name: value for name, value in more.items() if value}


def date_text(seconds: float | None) -> str | None:
    """Unix time as ISO 8601 writes it, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
