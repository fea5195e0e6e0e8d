"""A sweep's folder made or taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from lorasweep.training.data.load import Dataset
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, TrialRecord
from lorasweep.tuning.search.study import Unfinished, create_study, open_study, reconcile
from lorasweep.tuning.sweep.plan import SweepPlan, plan_sweep


def resume_plan(folder: SweepFolder, config: SweepConfig | None = None) -> SweepPlan:
    """The plan of a sweep that exists, with its own rows and its own configuration, or an extended one."""
    config = config or folder.config()
    return plan_sweep(config, Dataset.load(folder.data), folder.space(config.search.space))


def create_folder(
    plan: SweepPlan, mlruns: Path, earlier: Sequence[FrozenTrial] = (), start: Mapping[str, Any] | None = None
) -> SweepFolder:
    """Make a new sweep's folder, whole or not at all: configuration, plan, space, prepared rows, study.

    Args:
        earlier: trials of an older sweep that the sampler learns from.
        start: settings that are tried first; the space's own start if None.
    """
    folder = SweepFolder(mlruns, plan.config.name)
    with folder.making(plan.config) as making:
        making.write_plan(plan.summary())
        making.write_space(plan.space)
        plan.dataset.save(making.data)
        start = plan.space.start_point() if start is None else start
        create_study(making.study_url, folder.name, plan.config.training.metric, start, earlier)
    return folder


def reconcile_records(plan: SweepPlan, folder: SweepFolder) -> tuple[list[TrialRecord], list[Unfinished]]:
    """All trials so far, settled with what Optuna knows and on disk, and those that are to go on."""
    before = folder.trials()
    records, unfinished = reconcile(open_study(folder.study_url, folder.name), plan.space, before)
    for record in records:
        if record not in before:
            folder.write_trial(record)
    return records, unfinished
