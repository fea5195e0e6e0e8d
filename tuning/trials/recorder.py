"""Writes each trial's record as Ray Tune runs it, then tells the sweep's listeners."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Checkpoint
from ray.tune.experiment import Trial

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.ran_on import RanOn
from lorasweep.tuning.record.reported import (
    BEST_RUNG,
    DISK_FULL,
    ERROR,
    OBJECTIVE,
    RAN_ON,
    RUNG,
    SCORE,
    is_disk_full,
)
from lorasweep.tuning.record.results import EvaluationRecord, TrialRecord, now, trial_id
from lorasweep.tuning.trials.checkpoints import keep_outcomes, prune
from lorasweep.tuning.trials.failures import FailureWatch

# A frame of a traceback.
FRAME = re.compile(r'\s+File ".*", line \d+')


class Recorder(tune.Callback):
    """Ray Tune's callback in the driver: one record per trial, written before any listener is called.

    Args:
        rungs: evaluations of a full trial.
        searched: hyperparameters that the search space varies.
        past: records from earlier runs of the sweep.
        contenders: returns, of all trials, the ids of those that can still be chosen; when a trial ends, the
            checkpoints of the others are removed. All are kept if None.
        cut: Ray's ids of trials that end early because the sweep's time is over; filled by whoever ends them.

    Attributes:
        trials: every trial's record by id.
        watch: consecutive failures; it stops the sweep once it has a reason.
    """

    def __init__(
        self,
        folder: SweepFolder,
        rungs: int,
        searched: Sequence[str],
        listener: SweepListener | None = None,
        past: Sequence[TrialRecord] = (),
        contenders: Callable[[Sequence[TrialRecord]], Collection[str]] | None = None,
        cut: Collection[str] = (),
    ) -> None:
        self._folder = folder
        self._rungs = rungs
        self._searched = tuple(searched)
        self._listener = listener or SweepListener()
        self._contenders = contenders
        self._cut = cut
        self._storage = folder.config().resources.storage
        self._started: set[str] = set()
        self._to_start = 0
        self._when_started: Callable[[], None] = lambda: None
        self.watch = FailureWatch()
        self.trials: dict[str, TrialRecord] = {trial.id: trial for trial in past}

    def when_started(self, trials: int, call: Callable[[], None]) -> None:
        """Call a function as soon as so many trials have started: cores fall free from then on."""
        self._to_start, self._when_started = trials, call

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial starts or continues."""
        self._write(
            self._record(trial).model_copy(
                update={"ray_id": trial.trial_id, "state": "running", "ended": None}
            )
        )
        if trial.trial_id not in self._started:
            self._started.add(trial.trial_id)
            if len(self._started) == self._to_start:
                self._when_started()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """One more rung. A rung that is repeated after a restart replaces its first version."""
        record = self._record(trial)
        if ERROR in result:
            self._fail(record, str(result[ERROR]))
            return
        if SCORE not in result:
            return
        rung = int(result[RUNG])
        best = {SCORE: result[SCORE], OBJECTIVE: result[OBJECTIVE]}
        evaluation = EvaluationRecord.model_validate({**result["evaluation"], **best})
        earlier = tuple(entry for entry in record.evaluations if entry.rung < rung)
        update: dict[str, Any] = {
            "evaluations": (*earlier, evaluation),
            "score": result[SCORE],
            "best_rung": result[BEST_RUNG],
            "trainable_parameters": result["trainable_parameters"],
            "seconds": evaluation.seconds,
            "notes": _with_notes(record, *result["notes"]),
        }
        if RAN_ON in result:
            update["ran_on"] = RanOn.model_validate(result[RAN_ON])
            if result[BEST_RUNG] == rung:
                update["best_ran_on"] = update["ran_on"]
        self._write(record.model_copy(update=update))

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Checkpoint, **info: Any
    ) -> None:
        """The rung's checkpoint is on the storage: from now on the trial can continue from it."""
        record = self._record(trial)
        update = {"last_checkpoint": checkpoint.path}
        if record.evaluations and record.best_rung == record.reached:
            update["checkpoint"] = checkpoint.path
            keep_outcomes(self._folder, record.id, checkpoint.path, self._storage)
        self._write(record.model_copy(update=update))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial ended: with its full budget, or earlier by the stopping rule."""
        record = self._record(trial)
        if record.state == "failed" or not record.evaluations:
            return
        self.watch.went_well()
        update: dict[str, Any] = {"state": "completed", "ended": now()}
        if record.reached < self._rungs:
            update |= {"state": "stopped", "stopped_by": "time" if trial.trial_id in self._cut else None}
        self._write(record.model_copy(update=update))
        self.prune()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial's process broke; Ray restarts the trial from its last checkpoint."""
        record = self._record(trial)
        note = f"restarted after a crash: {error_line(_report(trial))}"
        self._write(record.model_copy(update={"notes": _with_notes(record, note)}))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial broke and is not restarted."""
        self._fail(self._record(trial), error_line(_report(trial)))

    def prune(self) -> None:
        """Remove the checkpoints that are no longer needed."""
        if self._contenders is not None:
            records = list(self.trials.values())
            for record in prune(self._folder, records, set(self._contenders(records)), self._storage):
                self.trials[record.id] = record
                self._folder.write_trial(record)

    def _fail(self, record: TrialRecord, error: str) -> None:
        if is_disk_full(error):
            # Nothing is wrong with the trial: it continues when there is space.
            self.watch.no_space(error.removeprefix(f"{DISK_FULL}: "))
            return
        self._write(record.model_copy(update={"state": "failed", "error": error, "ended": now()}))
        self.watch.failed(error)
        self.prune()

    def _record(self, trial: Trial) -> TrialRecord:
        key = ray_trial_name(trial)
        return self.trials.get(key) or TrialRecord(
            id=key,
            number=int(trial.config["number"]),
            finalist_of=trial.config.get("finalist_of"),
            hyperparameters=Hyperparameters(**trial.config["hyperparameters"]),
            searched=self._searched,
            start=trial.config.get("start"),
            started=now(),
        )

    def _write(self, record: TrialRecord) -> None:
        try:
            self._folder.write_trial(record)
        except OSError as error:
            if not is_disk_full(error):
                raise
            # Ray would only log it. What is not on disk has not happened: the rung will be repeated.
            self.watch.no_space(self._folder.path)
            return
        self.trials[record.id] = record
        self._listener.update(record)

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles its callbacks for its own restore; a sweep resumes from its records instead.
        return {}


def ray_trial_name(trial: Trial) -> str:
    """The trial's id as the name of Ray's records and folders."""
    return str(trial.config.get("id") or trial_id(int(trial.config["number"])))


def _with_notes(record: TrialRecord, *notes: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*record.notes, *notes)))


def _report(trial: Trial) -> str:
    # Not `trial.get_error()`: it reads from the storage, where Ray copies the file only later.
    path = trial.error_file
    return Path(path).read_text(encoding="utf-8") if path and Path(path).is_file() else ""


def error_line(report: str) -> str:
    """What broke a trial, on one line; Ray's log of the trial has all of it.

    Args:
        report: Ray's error file: a traceback, or how the trial's process died.
    """
    lines = report.splitlines()
    frames = [number for number, line in enumerate(lines) if FRAME.match(line)]
    if frames:
        # The exception stands below the source lines of the last frame, without their indent.
        raised = [line for line in lines[frames[-1] + 1 :] if line.strip() and not line.startswith(" ")]
        if raised:
            return raised[0][:500]
    if "actor died" in report or "actor is dead" in report:
        return (
            "its process died; the system may have killed it for lack of memory: lower --concurrency, "
            "or see Ray's log of the trial"
        )
    rest = [line for line in lines if line.strip() and not line.startswith("Failure #")]
    return rest[0][:500] if rest else "the trial ended without saying why; its process may have been killed"


def past_scores(trials: Sequence[TrialRecord]) -> Mapping[str, list[float]]:
    """Trial id → running best of the objective at each rung of search trials that ended, for the stopping rule.

    Failed trials are included: in an uninterrupted sweep the rule would have seen their rungs, too.
    """
    return {trial.id: list(trial.judged) for trial in searched_trials(trials) if not trial.unfinished}
