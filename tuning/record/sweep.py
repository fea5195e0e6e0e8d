"""`SweepRecord`: a sweep's folder, each file of it read at most once, for everything that only reads."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from lorasweep.search_spaces.space import Space
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, find_sweep
from lorasweep.tuning.record.results import SweepResult, SweepState, TrialRecord, Winner, rank_trials


class SweepRecord:
    """What a sweep's folder holds, as it stood when it was first looked at.

    A sweep that runs changes under it: make a new one to see how far it has come.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.folder.name

    @cached_property
    def config(self) -> SweepConfig:
        """The resolved configuration."""
        return self.folder.config()

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The summary of its `SweepPlan`: resources, budget, data, machine."""
        return self.folder.plan()

    @cached_property
    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        return self.folder.trials()

    @cached_property
    def result(self) -> SweepResult | None:
        """How it ended, or None while it has not."""
        return self.folder.result()

    @cached_property
    def state(self) -> SweepState:
        """Running, finished, interrupted or failed."""
        return self.folder.state()

    @cached_property
    def space(self) -> Space:
        """The search space it was started with. A space that is a function is imported, so its code runs."""
        return self.folder.space(self.config.search.space)

    @property
    def metric(self) -> Metric:
        """What trials are compared by."""
        return self.config.training.metric

    @property
    def searched(self) -> list[str]:
        """Names of the hyperparameters that the space searches."""
        return list(self.plan.get("searched", []))

    @property
    def winner(self) -> Winner | None:
        """The chosen trial, once there is one."""
        return self.result.winner if self.result else None

    def ranked(self) -> list[TrialRecord]:
        """Trials that have a score, the best first."""
        return rank_trials(self.trials, higher_is_better(self.metric))

    def won(self, verb: str, *, finished: bool = False) -> tuple[SweepResult, Winner]:
        """The result and its winner.

        Args:
            verb: what is to be done with it, for the message.
            finished: refuse a sweep that runs, or that is being extended.

        Raises:
            SettingsError: there is no winner.
        """
        if self.result is None or self.winner is None or (finished and self.state != "finished"):
            raise SettingsError(
                f"sweep {self.name}: has no winner to {verb} (it is {self.state}); go on with: "
                f"lorasweep resume {self.name}"
            )
        return self.result, self.winner

    def trial(self, trial_id: str) -> TrialRecord:
        """One trial by its id.

        Raises:
            SettingsError: there is none; the known ids are listed.
        """
        for trial in self.trials:
            if trial.id == trial_id:
                return trial
        ids = ", ".join(trial.id for trial in self.trials[:8]) or "none yet"
        raise SettingsError(f"sweep {self.name}: has no trial {trial_id!r}; there are: {ids}")


def read_sweep(mlruns: Path, name: str | None) -> SweepRecord:
    """The sweep of this name, or the newest one.

    Raises:
        SettingsError: there is none; the known names are listed.
    """
    return SweepRecord(find_sweep(mlruns, name))
