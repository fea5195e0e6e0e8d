"""`lorasweep status`: all sweeps, or one for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.folder import SweepFolder, rank_trials
from lorasweep.tuning.record.words import score_text


def sweeps_table(sweeps: Sequence[SweepFolder]) -> Table:
    """All sweeps: state, trials, best validation score, test accuracy."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("sweep", "state", "trials", "best", "test accuracy"):
        table.add_column(column, justify="left" if column in ("sweep", "state") else "right", overflow="fold")
    for sweep in sweeps:
        config, trials, result = sweep.config(), sweep.trials(), sweep.result()
        metric = config.training.metric
        best = rank_trials(trials, higher_is_better(metric))[:1]
        ended = sum(trial.state != "running" for trial in trials)
        table.add_row(
            escape(sweep.name),
            sweep.state(),
            f"{ended}/{config.search.trials}",
            score_text(best[0].score if best else None, metric),
            f"{result.winner.test.accuracy:.1%}" if result and result.winner else "-",
        )
    return table


def status_entries(folder: SweepFolder) -> dict[str, Any]:
    """One sweep for `status --json`: stable names that other programs may rely on."""
    result = folder.result()
    winner = result.winner if result else None
    return {
        "name": folder.name,
        "state": folder.state(),
        "metric": folder.config().training.metric,
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
            for trial in folder.trials()
        ],
        "winner": winner.model_dump() if winner else None,
        "unmerged": result.unmerged.model_dump() if result and result.unmerged else None,
        "untuned": result.untuned.model_dump() if result and result.untuned else None,
        "baselines": {name: test.model_dump() for name, test in result.baselines.items()} if result else {},
        "confirmed": [entry.model_dump() for entry in result.confirmed] if result else [],
        "choices": result.choices if result else {},
        "registered": result.registered.model_dump() if result and result.registered else None,
    }
