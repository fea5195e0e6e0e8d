"""The finalists of a search on a part of the rows: its best settings, trained and judged on all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.finalists import choose_finalists, finalist_id, finalists
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.plan.plan import SweepPlan

# A finalist takes all_rows / part_rows times the steps of its search trial, and the best rate falls with their number:
# for about four times the steps to 0.7, 0.6 and 0.4 of what it was, on three pairs of sizes with one seed each, in
# benchmarks/results/search.md. This gives 0.63. Above the best rate training soon diverges; below it little is lost.
RATE_POWER = 1 / 3


def rate_factor(part_rows: int, all_rows: int) -> float:
    """A finalist's learning rate, as a share of its search trial's.

    Args:
        part_rows, all_rows: training rows of the search, and of the finalist.
    """
    return float((part_rows / all_rows) ** RATE_POWER)


def finalist_settings(trial: TrialRecord, part_rows: int, all_rows: int) -> Hyperparameters:
    """The settings of a finalist, from a trial that did well on a part of the rows.

    A searched rate is lowered for the greater number of steps. The known-good start, and a rate that the space gives,
    stay as they are.

    Args:
        part_rows, all_rows: training rows of the search, and of the finalist.
    """
    if trial.start == 1 or "learning_rate" not in trial.searched:
        return trial.hyperparameters
    rate = trial.hyperparameters.learning_rate * rate_factor(part_rows, all_rows)
    return trial.hyperparameters.model_copy(update={"learning_rate": float(f"{rate:.3g}")})


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
            "hyperparameters": finalist_settings(trial, *rows).model_dump(),
        }
        for trial in choose_finalists(trials, config.training.metric, config.search.finalists_wanted)
        if finalist_id(trial) not in own
    ]
