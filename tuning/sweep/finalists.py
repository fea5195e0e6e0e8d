"""The finalists of a search on a part of the rows: its best settings, trained and judged on all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.finalists import choose_finalists, finalist_id, finalists
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.plan import SweepPlan


def finalist_settings(hyperparameters: Hyperparameters, part_rows: int, all_rows: int) -> Hyperparameters:
    """The settings of a finalist, from those that did well on a part of the rows.

    A finalist has the same number of epochs, so all_rows / part_rows times the steps, and a best learning rate may
    depend on their number. The one place for such a rule; the settings stay as they are.

    Args:
        part_rows, all_rows: training rows of the search, and of the finalist.
    """
    return hyperparameters


def finalists_to_train(plan: SweepPlan, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Ray's configurations of the finalists that have not ended, those that began before first.

    Finalists of fewer search trials stay on record when a sweep is extended, and go on if they had not ended.
    """
    config, own = plan.config, {trial.id: trial for trial in finalists(trials)}
    configs = [
        {
            "id": trial.id,
            "number": trial.number,
            "finalist_of": trial.finalist_of,
            "start": trial.start,
            "hyperparameters": trial.hyperparameters.model_dump(),
            "checkpoint": trial.last_checkpoint,
            "evaluations": [evaluation.model_dump() for evaluation in trial.evaluations],
        }
        for trial in own.values()
        if trial.unfinished
    ]
    rows = len(plan.search_data.train), len(plan.encoded.train)
    return configs + [
        {
            "id": finalist_id(trial),
            "number": trial.number,
            "finalist_of": trial.id,
            "start": trial.start,
            "hyperparameters": finalist_settings(trial.hyperparameters, *rows).model_dump(),
        }
        for trial in choose_finalists(trials, config.training.metric, config.search.finalists_wanted)
        if finalist_id(trial) not in own
    ]
