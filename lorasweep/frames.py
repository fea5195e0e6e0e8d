"""Tables of a sweep as pandas reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorasweep.training.metrics import ALWAYS
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import unmerged_rows

if TYPE_CHECKING:
    import pandas as pd


def trials_frame(record: SweepRecord) -> pd.DataFrame:
    """A row for each trial, the best first; those without a score come last, by number.

    After a search on a part of the rows the finalists come first: their scores are on all validation rows.
    """
    import pandas as pd

    trials = [*record.ranked(), *(trial for trial in record.trials if trial.score is None)]
    names = list(dict.fromkeys([*record.searched, *(name for trial in trials for name in trial.searched)]))
    own = [name for name in names if not name.startswith("_")]
    metrics = [*ALWAYS, *dict.fromkeys(name for trial in trials for name in _more(trial))]
    columns = [*("id", "state", "score"), *own, *metrics]
    columns += ["rungs", "trainable_parameters", "seconds", "error", "finalist_of"]
    return pd.DataFrame([_row(trial, own, metrics) for trial in trials], columns=columns)


def _row(trial: TrialRecord, searched: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    best = trial.best_evaluation
    scores = {name: best.by(name) if best else None for name in metrics}
    return {
        "id": trial.id,
        "state": trial.state,
        "score": trial.score,
        **{name: getattr(trial.hyperparameters, name) for name in searched},
        **scores,
        "rungs": trial.reached,
        "trainable_parameters": trial.trainable_parameters,
        "seconds": trial.seconds,
        "error": trial.error,
        "finalist_of": trial.finalist_of,
    }


def _more(trial: TrialRecord) -> list[str]:
    return list(trial.best_evaluation.more) if trial.best_evaluation else []


def compared_frame(result: SweepResult) -> pd.DataFrame:
    """Test scores of the winner and of what it is compared with, a row each."""
    import pandas as pd

    assert result.winner is not None
    rows = {f"winner {result.winner.id}": result.winner.test}
    if result.start is not None:
        rows[f"known-good start {result.start.id}"] = result.start.test
    rows |= dict(unmerged_rows(result))
    if result.untuned is not None:
        rows["untuned default"] = result.untuned.test
    rows |= result.baselines
    return pd.DataFrame.from_dict(
        {name: scores.values() for name, scores in rows.items()},
        orient="index",
        columns=list(dict.fromkeys(name for scores in rows.values() for name in scores.values())),
    )


def sweeps_frame(records: Sequence[SweepRecord]) -> pd.DataFrame:
    """A row for each sweep: name, state, trials that have ended, best validation score, test accuracy."""
    import pandas as pd

    rows = []
    for record in records:
        ranked, winner = record.ranked(), record.winner
        rows.append(
            {
                "name": record.name,
                "state": record.state,
                "ended": sum(not trial.unfinished for trial in searched_trials(record.trials)),
                "trials": len(searched_trials(record.trials))
                if record.config.search.open
                else record.config.search.trials,
                "metric": record.metric,
                "objective": record.objective,
                "score": ranked[0].score if ranked else None,
                "test_accuracy": winner.test.accuracy if winner else None,
            }
        )
    columns = ["name", "state", "ended", "trials", "metric", "objective", "score", "test_accuracy"]
    return pd.DataFrame(rows, columns=columns)
