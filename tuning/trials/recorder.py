"""Writes each trial's record as Ray Tune runs it, then tells the sweep's listeners."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Checkpoint
from ray.tune.experiment import Trial

from lorasweep.training.loop.early_end import ends_early
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.ran_on import RanOn
from lorasweep.tuning.record.reported import (
    AVOID,
    BEST_RUNG,
    DISK_FULL,
    ERROR,
    NODE_FAILED,
    NODE_ID,
    OBJECTIVE,
    RAN_ON,
    RUNG,
    SCORE,
    is_disk_full,
)
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord, now, trial_id
from lorasweep.tuning.storage.storage import Storage
from lorasweep.tuning.trials.checkpoints import keep_outcomes, prune, remove_left, remove_replaced
from lorasweep.tuning.trials.failures import FailureWatch
from lorasweep.tuning.trials.faults import Fault, error_line, fault_of, last_failure
from lorasweep.tuning.trials.node_watch import GIVEN_UP, PAUSE, NodeWatch
from lorasweep.tuning.trials.place import node_names

# Seconds between two looks whether a node is left for each trial that waits.
LOOK_SECONDS = 5.0


class Recorder(tune.Callback):
    """Ray Tune's callback in the driver: one record per trial, written before any listener is called.

    Args:
        rungs: evaluations of a full trial.
        searched: hyperparameters that the search space varies.
        past: records from earlier runs of the sweep.
        contenders: returns, of all trials, the ids of those that can still be chosen; when a trial ends, the
            checkpoints of the others are removed. All are kept if None.
        cut: Ray's ids of trials that end early because the sweep's time is over; filled by whoever ends them.
        max_failures: restarts of a trial whose process broke by itself.
        nodes: counts failures of nodes, which are tried again apart from these.
        placed: Ray's request for a trial's resources, by its configuration.
        early_end: evaluations without a lower validation loss after which a trial ends; None for no such end.

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
        max_failures: int = 0,
        nodes: NodeWatch | None = None,
        placed: Callable[[dict[str, Any]], Any] | None = None,
        early_end: int | None = None,
    ) -> None:
        self._folder = folder
        self._rungs = rungs
        self._searched = tuple(searched)
        self._listener = listener or SweepListener()
        self._contenders = contenders
        self._cut = cut
        self._max_failures = max_failures
        self._nodes = nodes or NodeWatch()
        self._placed = placed
        self._early_end = early_end
        self._crashes: dict[str, int] = {}
        self._looked = 0.0
        self._storage = Storage.of(folder)
        self._started: set[str] = set()
        self._to_start = 0
        self._when_started: Callable[[], None] = lambda: None
        self.watch = FailureWatch()
        self.trials: dict[str, TrialRecord] = {trial.id: trial for trial in past}

    def when_started(self, trials: int, call: Callable[[], None]) -> None:
        """Call a function as soon as so many trials have started: cores fall free from then on."""
        self._to_start, self._when_started = trials, call

    @property
    def all_started(self) -> bool:
        """Whether as many trials have started as were waited for."""
        return len(self._started) >= self._to_start

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial starts or continues."""
        if GIVEN_UP in trial.config:
            return
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
            if GIVEN_UP not in trial.config:
                self._fail(record, str(result[ERROR]))
            return
        if SCORE not in result:
            return
        self._nodes.went_well(record.id, result.get(NODE_ID))
        rung = int(result[RUNG])
        best = {SCORE: result[SCORE], OBJECTIVE: result[OBJECTIVE]}
        evaluation = EvaluationRecord.model_validate({**result["evaluation"], **best})
        earlier = tuple(entry for entry in record.evaluations if entry.rung < rung)
        update: dict[str, Any] = {
            "evaluations": (*earlier, evaluation),
            "score": result[SCORE],
            "best_rung": result[BEST_RUNG],
            "trainable_parameters": result["trainable_parameters"],
            "parameters": result.get("parameters"),
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
        after = record.model_copy(update=update)
        if self._write(after):
            remove_replaced(self._storage, record, after)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial ended: with its full budget or because it no longer learnt, or by the stopping rule."""
        record = self._record(trial)
        if record.state == "failed" or not record.evaluations:
            return
        self.watch.went_well()
        update: dict[str, Any] = {"state": "completed", "ended": now()}
        if record.reached < self._rungs and ends_early(record.losses, self._early_end):
            update |= {"stopped_by": "early_end"}
        elif record.reached < self._rungs:
            update |= {"state": "stopped", "stopped_by": "time" if trial.trial_id in self._cut else None}
        self._end(record.model_copy(update=update))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial broke, and Ray, which restarts all that break, starts it again from its last checkpoint.

        Whether it may go on is decided here: Ray would count a node's failures like those of the trial's settings.
        """
        record, report = self._record(trial), _report(trial)
        if (fault := fault_of(report, node_names())) is not None:
            self._try_elsewhere(trial, record, fault)
            return
        crashes = self._crashes[record.id] = self._crashes.get(record.id, 0) + 1
        line = error_line(report)
        if crashes > self._max_failures:
            trial.set_config({**trial.config, GIVEN_UP: line})
            trial.max_failures = 0  # not even to be told so
            self._fail(record, line)
            return
        trial.set_config({**trial.config, PAUSE: 0.0})
        self._note(record, f"restarted after a crash: {line}")

    def _try_elsewhere(self, trial: Trial, record: TrialRecord, fault: Fault) -> None:
        """Let a trial that a node broke wait, and go on where no node has failed of late."""
        pause = self._nodes.failed(record.id, fault)
        if pause is None:
            tries = self._nodes.tries(record.id)
            self._note(record, f"{fault.line}; not tried again after {tries} tries")
            self.watch.node_failed(f"{fault.line} (trial {record.id} was tried {tries} times)")
            return
        avoided = self._nodes.avoided()
        where = "on another node" if fault.node_id in avoided else "again"
        self._note(record, f"{fault.line}; tried {where} after {pause:g} s")
        trial.set_config({**trial.config, PAUSE: pause, AVOID: list(avoided)})
        if self._placed is not None:
            trial.update_resources(self._placed(trial.config))

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look now and then whether trials wait for nodes that are gone: Ray would let them wait for ever."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for trial in trials:
            if trial.status == Trial.PENDING and self._nodes.none_left(trial.config.get(AVOID) or ()):
                names = node_names()
                failed = ", ".join(names.get(node, node) for node in trial.config[AVOID])
                self.watch.node_failed(f"{NODE_FAILED} {failed}: and no other node is left for a trial")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial broke and is not restarted: its process was lost while Ray prepared it for the trial."""
        if GIVEN_UP in trial.config:
            return
        report = _report(trial)
        fault = fault_of(report, node_names())
        self._fail(self._record(trial), fault.line if fault else error_line(report))

    def _note(self, record: TrialRecord, note: str) -> None:
        self._write(record.model_copy(update={"notes": _with_notes(record, note)}))

    def prune(self) -> None:
        """Remove the checkpoints of ended trials that are no longer needed; those that cannot be now, the next time."""
        if self._contenders is None:
            return
        records = list(self.trials.values())
        # A storage that is away for a while breaks no trial, and none that has ended least of all.
        with suppress(OSError):
            for record in prune(self._storage, records, set(self._contenders(records))):
                self.trials[record.id] = record
                self._folder.write_trial(record)

    def tidy(self) -> None:
        """Remove all checkpoints that are not needed. No trial runs."""
        self.prune()
        if self._contenders is not None:
            remove_left(self._storage, list(self.trials.values()))

    def _fail(self, record: TrialRecord, error: str) -> None:
        if is_disk_full(error):
            # Nothing is wrong with the trial: it continues when there is space.
            self.watch.no_space(error.removeprefix(f"{DISK_FULL}: "))
            return
        if not error.startswith(NODE_FAILED):
            self.watch.failed(error)
        self._end(record.model_copy(update={"state": "failed", "error": error, "ended": now()}))

    def _end(self, record: TrialRecord) -> None:
        # Once for a trial, not at each of its evaluations: on a bucket each file costs requests.
        keep_outcomes(self._folder, self._storage, record)
        if self._write(record):
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

    def _write(self, record: TrialRecord) -> bool:
        """Write a record and tell the listeners of it; returns whether there was space for it."""
        try:
            self._folder.write_trial(record)
        except OSError as error:
            if not is_disk_full(error):
                raise
            # Ray would only log it. What is not on disk has not happened: the rung will be repeated.
            self.watch.no_space(self._folder.path)
            return False
        self.trials[record.id] = record
        self._listener.update(record)
        return True

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
    return last_failure(Path(path).read_text(encoding="utf-8")) if path and Path(path).is_file() else ""


def past_scores(trials: Sequence[TrialRecord]) -> Mapping[str, list[float]]:
    """Trial id → running best of the objective at each rung of search trials that ended, for the stopping rule.

    Failed trials are included: in an uninterrupted sweep the rule would have seen their rungs, too.
    """
    return {trial.id: list(trial.judged) for trial in searched_trials(trials) if not trial.unfinished}
