"""`lorasweep status`: a table of all sweeps, and one sweep as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.words import score_text


def sweeps_table(sweeps: Sequence[SweepRecord]) -> Table:
    """A row per sweep: state, trials, best validation score, test accuracy."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("sweep", "state", "trials", "best", "test accuracy"):
        table.add_column(column, justify="left" if column in ("sweep", "state") else "right", overflow="fold")
    for sweep in sweeps:
        best, winner = sweep.ranked()[:1], sweep.winner
        ended = sum(not trial.unfinished for trial in sweep.trials)
        table.add_row(
            escape(sweep.name),
            sweep.state,
            f"{ended}/{sweep.config.search.trials}",
            score_text(best[0].score if best else None, sweep.metric),
            f"{winner.test.accuracy:.1%}" if winner else "-",
        )
    return table


def status_entries(sweep: SweepRecord) -> dict[str, Any]:
    """One sweep for `status --json`, under names that stay stable for other programs."""
    result = sweep.outcome()
    return {
        "name": sweep.name,
        "state": sweep.state,
        "metric": sweep.metric,
        "trials": [
            {
                "id": trial.id,
                "state": trial.state,
                "score": trial.score,
                "settings": trial.hyperparameters.model_dump(),
                "trainable_parameters": trial.trainable_parameters,
                "seconds": trial.seconds,
            }
            | ({"error": trial.error} if trial.error else {})
            for trial in sweep.trials
        ],
        **result.model_dump(
            include={"winner", "unmerged", "untuned", "baselines", "confirmed", "choices", "registered"}
        ),
    }
