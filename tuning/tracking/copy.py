"""Copies a sweep into MLflow: a parent run, and a child run for each trial.

The sweep's folder is the record; MLflow holds a copy to look at. `copy_sweep` brings that copy up to date and
writes only what MLflow lacks, so it can be called as often as there is news, and again after it has failed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lorasweep.training.errors import first_line
from lorasweep.tuning.record.gains import start_text
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord, now
from lorasweep.tuning.search.stopping import stopping_rule
from lorasweep.tuning.tracking.entries import (
    ADDED,
    ENDED,
    ERROR,
    METRIC,
    NEAR,
    OBJECTIVE,
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
from lorasweep.tuning.tracking.notes import ends_text, sweep_note, trial_name, trial_note, winner_note
from lorasweep.tuning.tracking.runs import SweepRuns, TrackedRun
from lorasweep.tuning.tracking.store import hide_passwords
from lorasweep.tuning.tracking.views import experiment_tags, run_page, sweep_key, sweep_view, view_page

log = logging.getLogger("lorasweep")


def copy_sweep(
    sweep: SweepRecord,
    runs: SweepRuns,
    adapters: Mapping[str, Path] | None = None,
    *,
    report: bool = True,
    ended: float | None = None,
) -> None:
    """Write what MLflow lacks of a sweep.

    Trial records that `runs` has already copied are skipped without a look, so a call costs what has changed.
    Whatever the store raises passes through. Then open new `SweepRuns` and call again: MLflow may or may not
    have carried out the request that failed.

    Args:
        runs: of this sweep.
        adapters: trial → its adapter's folder, to keep as `adapter` among the trial's artifacts.
        report: add the report, once the sweep has ended and unless MLflow has this one.
        ended: Unix time of the sweep's end; by default as far as its records tell.
    """
    starts = [trial.started for trial in sweep.trials if trial.started]
    parent = runs.parent(min(starts, default=now()))
    if parent.copied is not sweep:
        _copy_plan(sweep, runs, parent)
        parent.copied = sweep
    running = sweep.state == "running"
    # Of a sweep that goes on, an earlier winner is a trial like the others.
    result = SweepResult(state="running", metric=sweep.metric) if running else sweep.outcome()
    for trial in sweep.trials:
        run = runs.trial(trial.id, trial.started or now())
        # At the end all of them, as the end makes one of them the winner.
        if run.copied is not trial or not running:
            _copy_trial(sweep, result, runs, run, trial)
            run.copied = trial
    if running:
        return
    if ended is None:
        # The winner is tested after the last trial: minutes that belong to the sweep.
        ends = [trial.ended for trial in sweep.trials if trial.ended]
        ends += [min(starts) + result.seconds] if starts else []
        ended = max(ends, default=now())
    _copy_result(sweep, runs, parent, result, ended)
    # Files last: they take longest and are the likeliest to fail, and by now MLflow has the scores.
    if report and any(trial.score is not None for trial in sweep.trials):
        _copy_report(sweep, runs, parent, result)
    for trial_id, folder in (adapters or {}).items():
        trial = sweep.trial(trial_id)
        run = runs.trial(trial_id, trial.started or now())
        runs.send_adapter(run, folder, f"of rung {trial.best_rung}, {_described(folder)}")


def _copy_plan(sweep: SweepRecord, runs: SweepRuns, parent: TrackedRun) -> None:
    views = experiment_tags(sweep.metric) | sweep_view(
        sweep.name, sweep.metric, sweep.searched, on_part=sweep.config.search.proxy is not None
    )
    runs.send_experiment_tags(views)
    tags: dict[str, str | None] = {METRIC: sweep.metric, OBJECTIVE: sweep.objective, **git_tags(sweep.plan)}
    if sweep.state == "running":
        # A sweep that is resumed or extended: what was written of its end no longer holds.
        tags |= {STATE: "running", ERROR: None, ENDED: None, WINNER: None, ADDED: None}
        runs.send_note(parent, None)
        runs.set_status(parent, "RUNNING", now())
    runs.send(parent, sweep_params(sweep.config, sweep.plan), tags)
    runs.send_text(parent, hide_passwords(sweep.config.to_yaml()), "config.yaml")
    space = sweep.folder.path / "space.yaml"
    if space.is_file():
        runs.send_text(parent, space.read_text(encoding="utf-8"), "space.yaml")
    runs.send_data(parent, dataset_input(sweep.plan))


def _copy_trial(
    sweep: SweepRecord, result: SweepResult, runs: SweepRuns, run: TrackedRun, trial: TrialRecord
) -> None:
    won = result.winner is not None and result.winner.id == trial.id
    rungs = sweep.config.training.rungs
    started = trial.started or now()
    stopping = stopping_rule(sweep.config.search).label
    status, tags = (
        TRIAL_STATUS[trial.state],
        trial_tags(trial, sweep.metric, sweep.objective, rungs, stopping),
    )
    tags[WINNER] = "true" if won else None
    tags[NEAR] = "true" if trial.id in result.near else None
    # Counted from the trial's start: the record does not hold when a rung was reached, and a copy made later
    # has to give the same times.
    times = {evaluation.rung: started + evaluation.seconds for evaluation in trial.evaluations}
    metrics = trial_metrics(trial, sweep.metric, sweep.objective, on_part=sweep.on_part(trial))
    rows = [(rung, times[rung], numbers) for rung, numbers in metrics.items()]
    runs.send_data(run, dataset_input(sweep.plan))
    runs.send(run, trial_params(trial), tags, rows)
    ended = trial.ended or started + trial.seconds
    note = trial_note(trial)
    if won:
        # Its test scores are no metrics of the run: the trials' charts would begin with bars of this one.
        note = winner_note(sweep, result, trial, run_page(runs.experiment, runs.parent(started).id))
    runs.send_note(run, note[:TAG_LENGTH] if note else None)
    runs.set_status(run, status, ended, trial_name(trial, sweep.name, rungs, won=won))


def _copy_result(
    sweep: SweepRecord, runs: SweepRuns, parent: TrackedRun, result: SweepResult, ended: float
) -> None:
    winner = result.winner.id if result.winner else None
    for run in runs.trials.values():
        if run.status == "RUNNING":
            runs.set_status(run, "KILLED", ended)
    runs.send_metrics(parent, result_metrics(result, sweep.trials), ended)
    error = result.error[:TAG_LENGTH] if result.error else None
    added = start_text(result)
    tags = {STATE: result.state, ENDED: ends_text(sweep), ERROR: error, WINNER: winner, ADDED: added}
    runs.send(parent, {}, tags)
    won = runs.trials.get(winner) if winner else None
    note = sweep_note(
        sweep,
        result,
        view_page(runs.experiment, sweep_key(sweep.name)),
        run_page(runs.experiment, won.id) if won else None,
    )
    runs.send_note(parent, note[:TAG_LENGTH])
    runs.set_status(parent, SWEEP_STATUS[result.state], ended)


def _described(folder: Path) -> str:
    """Tells an adapter folder from one of the same weights with other thresholds or another card."""
    digest = hashlib.sha256()
    for name in ("config.json", "README.md"):
        with suppress(OSError):  # whoever sends the folder says that it is gone
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _copy_report(sweep: SweepRecord, runs: SweepRuns, parent: TrackedRun, result: SweepResult) -> None:
    from lorasweep.tuning.report.page import report_files

    parts = [result.model_dump_json(exclude={"published", "registered"})]
    parts += [trial.model_dump_json() for trial in sweep.trials]
    version = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if parent.tags.get(REPORT) == version:
        return
    try:
        files = report_files(sweep.folder)
    except Exception as error:  # a plot that fails is no reason to hold back the adapters
        log.warning("sweep %s: its report cannot be drawn (%s)", sweep.name, first_line(error))
        log.debug("why the report cannot be drawn", exc_info=True)
        return
    runs.send_report(parent, files, version)
