"""A sweep in MLflow: a parent run, a child run a trial, filled as the sweep goes and fillable again.

The sweep's folder is the record; MLflow is a copy of it to look at. So whatever MLflow does, the sweep goes
on, and what the store missed is sent later: each write first asks what is there already.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.training.errors import SettingsError, first_line
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, SweepResult, TrialRecord, now
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.search.stopping import stopping_rule
from lorasweep.tuning.tracking.entries import (
    ENDED,
    ERROR,
    METRIC,
    NOTES,
    REPORT,
    STATE,
    SWEEP_STATUS,
    TAG_LENGTH,
    TRIAL_STATUS,
    WINNER,
    dataset_input,
    git_tags,
    result_metrics,
    sweep_params,
    trial_metrics,
    trial_params,
    trial_tags,
)
from lorasweep.tuning.tracking.notes import ends_text, sweep_note, trial_name, trial_note
from lorasweep.tuning.tracking.runs import SweepRuns, TrackedRun, identity_of
from lorasweep.tuning.tracking.store import (
    artifact_root,
    default_tracking_uri,
    hide_passwords,
    prepare_store,
    quiet,
    reason,
    ui_command,
)
from lorasweep.tuning.tracking.views import experiment_tags, run_page, trials_key, view_page

if TYPE_CHECKING:
    from lorasweep.tuning.tracking.models.registry import Registered

__all__ = ["Tracking", "default_tracking_uri", "prepare_store", "ui_command"]

EXPERIMENT = "lorasweep"
log = logging.getLogger("lorasweep")


class Tracking:
    """Keeps one sweep's runs in an MLflow store.

    No method raises for what the store does: it is told once in the log, and made good by a later call.

    Args:
        folder: of the sweep. A file in it keeps the identity by which the runs are found again: the store may
            hold another sweep of this name, somebody else's or one whose folder was removed.
        uri: a store that `prepare_store` has passed.
        experiment: MLflow's experiment that takes the runs.
        retry_after: seconds without another try once the store has failed, so that a server that is away
            does not hold up the sweep at each rung.
    """

    def __init__(
        self,
        folder: SweepFolder,
        config: SweepConfig,
        uri: str,
        experiment: str = EXPERIMENT,
        retry_after: float = 30.0,
    ) -> None:
        self._folder = folder
        self._config = config
        self._uri = uri
        self._experiment = experiment
        self._retry_after = retry_after
        self._retry_at = 0.0
        self._behind = False
        self._failed = False
        self._why = ""
        self._going = True
        self._complete = False
        self._summary: Mapping[str, Any] | None = None
        self._trials: dict[str, TrialRecord] = {}
        self._opened: SweepRuns | None = None

    def start(self, summary: Mapping[str, Any]) -> None:
        """Open the parent run, or find it again and let it go on.

        Args:
            summary: what is known beside the configuration, such as the data's fingerprint and rows; becomes
                params of the parent. Params that MLflow has already stay: it does not let them change.
        """
        self._summary = summary
        self._going = True
        self._attempt(self._record_sweep)

    def update(self, trial: TrialRecord) -> None:
        """Record how a trial stands: its settings, the evaluations that are new, how it ended."""
        self._trials[trial.id] = trial
        if not self._behind:
            self._attempt(lambda: self._record_trial(trial))
        elif time.monotonic() >= self._retry_at:
            self._attempt(self._record_all)

    def finish(self, result: SweepResult, adapters: Mapping[str, Path]) -> bool:
        """Record the end: scores, the winner, adapters, and no run left running.

        Args:
            adapters: trial → its adapter's folder, kept as `adapter` in the trial's artifacts.

        Returns:
            Whether MLflow now has everything.
        """
        self._trials |= {trial.id: trial for trial in self._folder.trials()}
        # A person who has just pressed Ctrl-C waits for the end, not for plots.
        return self._finish(result, adapters, now(), report=result.state == "finished")

    def refill(self, adapters: Mapping[str, Path] | None = None) -> bool:
        """Record everything that the sweep's folder holds and the store lacks.

        Returns:
            Whether MLflow now has everything.
        """
        if self._summary is None:
            self._summary = self._folder.plan()
        self._trials |= {trial.id: trial for trial in self._folder.trials()}
        state = self._folder.state()
        if state == "running":
            self._going = True
            return self._attempt(self._record_all)
        result = self._folder.result() or SweepResult(state=state, metric=self._config.training.metric)
        ends = [trial.ended for trial in self._trials.values() if trial.ended]
        # After the last trial the winner is tested, and confirmed or compared: minutes that belong to the sweep.
        starts = [trial.started for trial in self._trials.values() if trial.started]
        ends += [min(starts) + result.seconds] if starts else []
        return self._finish(result, adapters or {}, max(ends, default=now()), report=True)

    def register(self, name: str, *, self_contained: bool = False) -> Registered:
        """Make the winner a version of a registered model; see `lorasweep.tuning.tracking.models.registry.register`.

        Raises:
            LorasweepError: no winner, no adapter folder of it, or a store that fails: one line.
        """
        from lorasweep.tuning.tracking.models.registry import register

        winner = SweepRecord(self._folder).won("register")[1].id
        best = self._folder.path / "best"
        if not self._complete and not self.refill({path.name: path for path in best.glob("t*")}):
            raise SettingsError(f"sweep {self._folder.name}: MLflow does not answer; try again when it does")
        run = self._runs().trial(winner, now())
        return register(self._folder, self._uri, name, best / winner, run.id, self_contained=self_contained)

    def _finish(
        self, result: SweepResult, adapters: Mapping[str, Path], ended: float, *, report: bool
    ) -> bool:
        def record() -> None:
            if self._failed:
                # A request that was given up may have been carried out since: two runs become one again.
                self._opened = None
            self._record_all()
            self._record_result(result, ended)
            # Last, as files take longest and are likeliest to fail: the scores are in by now.
            if report and any(trial.score is not None for trial in self._trials.values()):
                self._record_report(result, ended)
            for trial_id, path in adapters.items():
                trial = self._trials[trial_id]
                run = self._runs().trial(trial_id, trial.started or now())
                self._runs().send_adapter(run, path, f"of rung {trial.best_rung}")

        self._going = False
        complete = self._complete = self._attempt(record)
        if not complete:
            log.warning(
                "%s; sweep %s is whole in %s; fill MLflow with: lorasweep publish %s",
                self._why,
                self._folder.name,
                self._folder.path,
                self._folder.name,
            )
        return complete

    def _attempt(self, record: Callable[[], None]) -> bool:
        error = self._failure(record)
        if error is not None and not self._behind:
            # Once more at once, for a line that was cut: the store is asked afresh what has arrived by then.
            # MLflow's own retries are off, as they would repeat blindly, and make a run twice.
            error = self._failure(record)
        if error is None:
            self._behind = False
            return True
        self._retry_at = time.monotonic() + self._retry_after
        self._why = f"MLflow at {hide_passwords(self._uri)} takes no records ({reason(error)})"
        if not self._behind and self._going:
            log.warning("%s; the sweep goes on, they are sent later", self._why)
        log.debug("why MLflow takes no records", exc_info=error)
        self._behind = True
        return False

    def _failure(self, record: Callable[[], None]) -> Exception | None:
        try:
            with quiet():
                record()
        # Databases, servers and artifact stores each raise errors of their own; hours of training hang on it.
        except Exception as error:
            # Runs may have been deleted by hand, and what has failed here may still be carried out there.
            self._opened = None
            self._failed = True
            return error
        return None

    def _runs(self) -> SweepRuns:
        if self._opened is None:
            identity = identity_of(self._folder.path)
            artifacts = artifact_root(self._folder.mlruns)
            self._opened = SweepRuns(self._uri, self._experiment, artifacts, self._folder.name, identity)
        return self._opened

    def _record_report(self, result: SweepResult, ended: float) -> None:
        from lorasweep.tuning.report.page import report_files

        parts = [result.model_dump_json(exclude={"published", "registered"})]
        parts += [trial.model_dump_json() for trial in self._trials.values()]
        version = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        runs = self._runs()
        parent = runs.parent(ended)
        if parent.tags.get(REPORT) == version:
            return
        try:
            files = report_files(self._folder)
        except Exception as error:  # a plot that fails is no reason to hold back adapters
            log.warning("sweep %s: its report cannot be drawn (%s)", self._folder.name, first_line(error))
            log.debug("why the report cannot be drawn", exc_info=True)
            return
        runs.send_report(parent, files, version)

    def _record_all(self) -> None:
        self._record_sweep()
        for trial in self._trials.values():
            self._record_trial(trial)

    def _record_sweep(self) -> None:
        runs = self._runs()
        starts = [trial.started for trial in self._trials.values() if trial.started]
        parent = runs.parent(min(starts, default=now()))
        metric = self._config.training.metric
        runs.send_experiment_tags(experiment_tags(metric))
        runs.send(
            parent,
            sweep_params(self._config, self._summary or {}),
            {METRIC: metric} | git_tags(self._summary or {}),
        )
        if self._going:
            runs.send(parent, {}, {STATE: "running", ERROR: None, ENDED: None})
            runs.send_note(parent, None)
            runs.set_status(parent, "RUNNING", now())
        runs.send_text(parent, hide_passwords(self._config.to_yaml()), "config.yaml")
        space = self._folder.path / "space.yaml"
        if space.is_file():
            runs.send_text(parent, space.read_text(encoding="utf-8"), "space.yaml")
        self._record_data(parent)

    def _record_data(self, run: TrackedRun) -> None:
        data = dataset_input(self._summary or {})
        if data is not None:
            self._runs().send_data(run, data)

    def _record_trial(self, trial: TrialRecord) -> None:
        runs = self._runs()
        started = trial.started or now()
        run = runs.trial(trial.id, started)
        self._record_data(run)
        # Counted from the trial's start: when exactly a rung was reached is not kept, and this stays the same
        # however often the store is filled.
        times = {evaluation.rung: started + evaluation.seconds for evaluation in trial.evaluations}
        metrics = trial_metrics(trial, self._config.training.metric)
        runs.send_rungs(run, {rung: (times[rung], numbers) for rung, numbers in metrics.items()})
        rungs = self._config.training.rungs
        tags: dict[str, str | None] = {ENDED: None, ERROR: None, NOTES: None}
        tags |= {
            METRIC: self._config.training.metric,
            **trial_tags(trial, rungs, stopping_rule(self._config.search).label),
        }
        status = TRIAL_STATUS[trial.state]
        # The sweep has ended and took this trial with it.
        interrupted = trial.state == "running" and not self._going
        if interrupted:
            status, tags[STATE] = "KILLED", "interrupted"
        runs.send(run, trial_params(trial), tags)
        runs.send_note(run, trial_note(trial))
        runs.set_name(run, trial_name(trial, rungs, interrupted=interrupted))
        runs.set_status(run, status, trial.ended or started + trial.seconds)

    def _record_result(self, result: SweepResult, ended: float) -> None:
        runs = self._runs()
        parent = runs.parent(ended)
        winner = result.winner.id if result.winner else None
        for trial_id, run in runs.trials.items():
            runs.send(run, {}, {WINNER: "true" if trial_id == winner else None})
            if run.status == "RUNNING":
                runs.set_status(run, "KILLED", ended)
        runs.send_metrics(parent, result_metrics(result, self._trials.values()), ended)
        error = result.error[:TAG_LENGTH] if result.error else None
        ends = ends_text(list(self._trials.values()), stopping_rule(self._config.search).label)
        runs.send(parent, {}, {STATE: result.state, ENDED: ends, ERROR: error, WINNER: winner})
        won = runs.trials.get(winner) if winner else None
        note = sweep_note(
            self._folder,
            result,
            list(self._trials.values()),
            list((self._summary or {}).get("searched", ())),
            view_page(runs.experiment, trials_key(result.metric)),
            run_page(runs.experiment, won.id) if won else None,
        )
        runs.send_note(parent, note[:TAG_LENGTH])
        runs.set_status(parent, SWEEP_STATUS[result.state], ended)
