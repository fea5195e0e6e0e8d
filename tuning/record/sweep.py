"""`SweepRecord`: a sweep's folder for readers; each file is read at most once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from lorasweep.search_spaces.space import Space
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Metric
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, find_sweep
from lorasweep.tuning.record.results import SweepResult, SweepState, Winner
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials


class SweepRecord:
    """What a sweep's folder holds. Each attribute is read on first use and then stays.

    A running sweep moves on: make a new record to see its progress.
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
        """All trials, by number. Those that did not end are running only while the sweep is."""
        trials = self.folder.trials()
        if self.state == "running":
            return trials
        interrupted = {"state": "interrupted"}
        return [trial.model_copy(update=interrupted) if trial.unfinished else trial for trial in trials]

    @cached_property
    def result(self) -> SweepResult | None:
        """The result, or None before there is one. A run that was killed after it was written counts in its time."""
        result = self.folder.result()
        if result is None or result.state == "finished":
            return result
        return result.model_copy(update={"seconds": max(result.seconds, self.folder.seconds())})

    @cached_property
    def state(self) -> SweepState:
        """Running, finished, interrupted or failed."""
        return self.folder.state()

    @cached_property
    def space(self) -> Space:
        """The sweep's search space. A function's file is imported, so its code runs."""
        return self.folder.space(self.config.search.space)

    @property
    def seconds(self) -> float:
        """Wall time until the sweep had a winner, summed over its runs, or until its last run stopped."""
        return self.result.seconds if self.result is not None else self.folder.seconds()

    @property
    def metric(self) -> Metric:
        """The metric that ranks trials."""
        return self.config.training.metric

    @property
    def objective(self) -> Metric:
        """What stops trials and guides the sampler."""
        return self.config.objective

    @property
    def searched(self) -> list[str]:
        """Names of the hyperparameters that the search space varies."""
        return list(self.plan.get("searched", []))

    @property
    def winner(self) -> Winner | None:
        """The chosen trial, once there is one."""
        return self.result.winner if self.result else None

    def ranked(self) -> list[TrialRecord]:
        """Trials that have a score, best first."""
        return rank_trials(self.trials, self.metric)

    def on_part(self, trial: TrialRecord) -> bool:
        """Whether a trial was trained and judged on a part of the rows, to find settings for all of them."""
        return self.config.search.proxy is not None and trial.finalist_of is None

    def outcome(self) -> SweepResult:
        """The result in its present state, with the time so far; one without a winner if nothing is recorded."""
        result = self.result or SweepResult(state=self.state, metric=self.metric)
        return result.model_copy(update={"state": self.state, "seconds": self.seconds})

    def won(self, verb: str, *, finished: bool = False) -> tuple[SweepResult, Winner]:
        """The result and its winner.

        Args:
            verb: what the caller wants to do with it, for the message.
            finished: refuse a sweep that is running or being extended.

        Raises:
            SettingsError: there is no winner.
        """
        if self.result is None or self.winner is None or (finished and self.state != "finished"):
            raise SettingsError(
                f"sweep {self.name}: has no winner to {verb} (it is {self.state}); continue it with: "
                f"{self.folder.command('resume')}"
            )
        return self.result, self.winner

    def trial(self, trial_id: str) -> TrialRecord:
        """One trial by its id.

        Raises:
            SettingsError: there is none; the message lists the ids.
        """
        for trial in self.trials:
            if trial.id == trial_id:
                return trial
        ids = ", ".join(trial.id for trial in self.trials[:8]) or "none yet"
        raise SettingsError(f"sweep {self.name}: has no trial {trial_id!r}; there are: {ids}")


def read_sweep(mlruns: Path, name: str | None) -> SweepRecord:
    """The sweep of this name, or the newest one.

    Raises:
        SettingsError: there is none; the message lists the names.
    """
    return SweepRecord(find_sweep(mlruns, name))
