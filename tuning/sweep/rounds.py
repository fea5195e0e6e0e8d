"""Runs a sweep's trials in Ray Tune: the search, and after a search on a part of the rows its finalists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import CombinedStopper

from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.errors import SweepStoppedError, TrainingError, first_line
from lorasweep.training.loop.early_end import ends_early
from lorasweep.training.settings import TrainingSettings
from lorasweep.tuning.record.finalists import finalists, searched_trials
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.reported import is_disk_full
from lorasweep.tuning.record.trial_records import TrialRecord, now
from lorasweep.tuning.search.fixed import FixedSearch
from lorasweep.tuning.search.limits import Limits
from lorasweep.tuning.search.searcher import make_searcher
from lorasweep.tuning.search.stopping import make_scheduler
from lorasweep.tuning.search.study import Unfinished, open_study, reconcile, try_again
from lorasweep.tuning.storage.storage import Storage
from lorasweep.tuning.sweep.estimate import RoundLimits
from lorasweep.tuning.sweep.finalists import finalists_to_train
from lorasweep.tuning.sweep.plan.plan import SweepPlan, trial_setup
from lorasweep.tuning.sweep.winner import phases
from lorasweep.tuning.sweep.winner.choice import contenders
from lorasweep.tuning.trials.checkpoints import keep_outcomes, without_lost
from lorasweep.tuning.trials.interrupt import clean_stop
from lorasweep.tuning.trials.node_watch import NodeWatch, able_nodes, placement
from lorasweep.tuning.trials.recorder import Recorder, past_scores, ray_trial_name
from lorasweep.tuning.trials.trial import run_trial
from lorasweep.tuning.trials.waiting import StartWatch


@dataclass(frozen=True)
class Round:
    """What the trials of a round share.

    Attributes:
        limits: what ends it before it has its number of trials.
        all_started: called when its last trial has started.
        data: what its trials train on.
        nodes: which nodes have failed.
        own: those of some trials that belong to it.
    """

    plan: SweepPlan
    folder: SweepFolder
    listener: SweepListener
    limits: Limits
    all_started: Callable[[], None]
    data: EncodedDataset
    nodes: NodeWatch
    own: Callable[[Iterable[TrialRecord]], list[TrialRecord]]


def run_trials(
    plan: SweepPlan,
    folder: SweepFolder,
    past: list[TrialRecord],
    unfinished: list[Unfinished],
    listener: SweepListener,
    all_started: Callable[[], None],
    limits: RoundLimits,
) -> list[TrialRecord]:
    """Run the trials that are missing, round by round.

    Args:
        past: records from earlier runs of the sweep.
        unfinished: search trials to continue.
        all_started: called when the last trial of the last round has started.
        limits: what ends a round before it has its number of trials.

    Returns:
        The trials that the winner is chosen among: all, or the finalists of a search on a part. Empty where some
        have still to run.

    Raises:
        TrainingError: several trials in a row failed for the same reason.
        SweepStoppedError: the disk is full, or a node fails and its trials find no other.
    """
    on_part = plan.part is not None
    then = (lambda: None) if on_part else all_started
    nodes = NodeWatch(lambda: able_nodes(plan.resources.cpus_per_trial, plan.resources.gpus_per_trial))
    search = Round(plan, folder, listener, limits.search, then, plan.search_data, nodes, searched_trials)
    trials = run_search(search, past, unfinished)
    searched = searched_trials(trials)
    ended = len(searched) >= plan.config.search.trials or limits.search.reason is not None
    if not ended or _running(searched):
        return []
    if not on_part:
        return trials
    last = Round(plan, folder, listener, limits.finalists, all_started, plan.encoded, nodes, finalists)
    trials = run_finalists(last, trials)
    if limits.finalists.reason is None and finalists_to_train(plan, trials):
        return []  # it was stopped before all of them had begun
    # Without a score there is no finalist, and no winner among the others either.
    return [] if _running(trials) else finalists(trials) or trials


def run_search(this: Round, past: list[TrialRecord], unfinished: list[Unfinished]) -> list[TrialRecord]:
    """The trials that the sampler proposes, stopped early by the sweep's rule; see `run_trials`.

    Returns:
        All trials by number.
    """
    plan, limits = this.plan, this.limits
    config, settings = plan.config, plan.config.training
    ended = sum(not trial.unfinished for trial in this.own(past))
    limits.follow(partial(this.own, past), this.all_started)
    if ended >= config.search.trials or not (unfinished or limits.may_start()):
        return past
    searcher = make_searcher(
        plan.space,
        config.search.model_copy(update={"trials": plan.budget.trials}),
        config.objective,
        rungs=settings.rungs,
        seed=settings.seed,
        concurrency=plan.resources.concurrency,
        study_name=config.name,
        study_url=this.folder.study_url,
        unfinished=unfinished,
        may_start=limits.may_start,
        avoided=this.nodes.avoided,
        early_end=settings.early_end,
    )
    scheduler = make_scheduler(config.search, config.objective, settings.rungs, past_scores(past))
    return _run_round(this, past, searcher, scheduler, config.search.trials - ended)


def run_finalists(this: Round, past: list[TrialRecord]) -> list[TrialRecord]:
    """The best settings of a search on a part, each trained on all rows to the end; see `run_trials`.

    Args:
        past: the search's trials, and finalists from earlier runs.

    Returns:
        All trials by number.
    """
    configs, limits = finalists_to_train(this.plan, past), this.limits
    limits.follow(partial(this.own, past), this.all_started)
    if not configs or not (_running(this.own(past)) or limits.may_start()):
        return past
    this.listener.phase(phases.FINALISTS)
    searcher = FixedSearch(configs, limits.may_start, this.nodes.avoided)
    return _run_round(this, past, searcher, FIFOScheduler(), len(configs))


def _run_round(
    this: Round, past: Sequence[TrialRecord], searcher: Searcher, scheduler: TrialScheduler, count: int
) -> list[TrialRecord]:
    """Let Ray Tune run so many trials; returns them and those of the past, by number."""
    plan, folder, limits = this.plan, this.folder, this.limits
    config, settings, resources = plan.config, plan.config.training, plan.resources
    can_win = partial(contenders, config=config)
    placed = partial(placement, cpus=resources.cpus_per_trial, gpus=resources.gpus_per_trial)
    recorder = Recorder(
        folder,
        settings.rungs,
        list(plan.space.searched),
        this.listener,
        past,
        can_win,
        limits.cut,
        config.search.max_failures,
        this.nodes,
        placed,
        settings.early_end,
    )
    limits.follow(lambda: this.own(recorder.trials.values()), this.all_started)
    recorder.when_started(count, this.all_started)
    recorder.tidy()
    storage = Storage.of(folder)
    waits = StartWatch(this.listener.waiting, resources.cpus_per_trial, resources.gpus_per_trial)
    above, _, own = storage.root.rpartition("/")
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, data=this.data, setup=trial_setup(plan, resources)),
            placed,
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=count,
            max_concurrent_trials=resources.concurrency,
            reuse_actors=True,
            trial_name_creator=ray_trial_name,
            trial_dirname_creator=ray_trial_name,
        ),
        run_config=tune.RunConfig(
            # Each run has its own folder: a continued trial numbers its checkpoints from 0 again. By this name Ray
            # also keeps files in a temporary folder that the sweeps of a cluster share.
            name=f"{own}/{storage.next_run()}",
            storage_path=above,
            storage_filesystem=storage.filesystem,
            # The recorder removes checkpoints. Told how many to keep, Ray would send its own state with each of them.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=None),
            # All that break: the recorder decides which of them go on.
            failure_config=tune.FailureConfig(max_failures=-1),
            stop=CombinedStopper(recorder.watch, limits),
            callbacks=[recorder, waits],
            verbose=0,
            # In a notebook Ray would clear the cell, and what we draw in it, for a reporter of its own.
            progress_reporter=tune.CLIReporter(),
        ),
    )
    with clean_stop(this.listener.stopping):
        _fit(tuner, recorder, this)
    recorder.tidy()
    if recorder.watch.disk_full:
        raise no_space(folder)
    if recorder.watch.of_node:
        raise _stopped(folder, recorder.watch.reason)
    if recorder.watch.reason:
        raise TrainingError(
            f"sweep {folder.name}: {recorder.watch.reason}; fix that, then: {folder.command('resume')}"
        )
    return sorted(recorder.trials.values(), key=lambda trial: (trial.number, trial.id))


def _fit(tuner: tune.Tuner, recorder: Recorder, this: Round) -> None:
    """Let Ray Tune run its trials. At its end it reads the storage once more, for a table that nobody needs.

    Raises:
        SweepStoppedError: the storage is away, and trials have still to run.
    """
    try:
        tuner.fit()
    except (OSError, ValueError) as error:
        if is_disk_full(error):
            raise
        proposed = recorder.all_started or this.limits.reason is not None
        if recorder.watch.reason is not None or (proposed and not _running(list(recorder.trials.values()))):
            return
        if isinstance(error, ValueError):
            raise
        raise _stopped(this.folder, f"the storage cannot be used ({first_line(error)})") from error


def _stopped(folder: SweepFolder, reason: str | None) -> SweepStoppedError:
    """The error of a sweep that ends because of a node or the storage."""
    return SweepStoppedError(
        f"sweep {folder.name}: {reason}; nothing is lost. Mend that, then: {folder.command('resume')}"
    )


def reconcile_records(
    plan: SweepPlan, folder: SweepFolder, retry: Collection[str], limits: RoundLimits
) -> tuple[list[TrialRecord], list[Unfinished]]:
    """All trials so far, reconciled with Optuna's study and written; and the search trials to go on with.

    Args:
        retry: ids of trials that failed and are tried again.
        limits: a trial that has a score ends where it stands if the time for its round is over.
    """
    storage = Storage.of(folder)
    before = _in_time(folder, storage, limits, plan.config.training)
    study = open_study(folder.study_url, folder.name)
    # Optuna knows nothing of finalists: their records alone say how they stand.
    records, unfinished = reconcile(study, plan.space, searched_trials(before), plan.config.training)
    for index, record in enumerate(records):
        if record.state == "failed" and record.id in retry:
            records[index], again = try_again(study, plan.space, without_lost(storage, record))
            unfinished.append(again)
    records += [
        without_lost(storage, record).tried_again()
        if record.state == "failed" and record.id in retry
        else record
        for record in finalists(before)
    ]
    for record in records:
        if record not in before:
            folder.write_trial(record)
    return sorted(records, key=lambda trial: (trial.number, trial.id)), unfinished


def _in_time(
    folder: SweepFolder, storage: Storage, limits: RoundLimits, training: TrainingSettings
) -> list[TrialRecord]:
    """All trials on record; those that an earlier run has left, and for which no time is left, as stopped.

    One that would not have gone on anyway has ended early.
    """
    trials = folder.trials()
    for limit, kind in ((limits.search, searched_trials), (limits.finalists, finalists)):
        limit.follow(partial(kind, trials), lambda: None)
    over = {False: limits.search.time_is_over(), True: limits.finalists.time_is_over()}
    for place, trial in enumerate(trials):
        if trial.state == "running" and trial.evaluations and over[trial.finalist_of is not None]:
            update: dict[str, Any] = {"state": "stopped", "stopped_by": "time", "ended": now()}
            if trial.reached < training.rungs and ends_early(trial.losses, training.early_end):
                update |= {"state": "completed", "stopped_by": "early_end"}
            trials[place] = trial.model_copy(update=update)
            keep_outcomes(folder, storage, trials[place])
            folder.write_trial(trials[place])
    return trials


def _running(trials: Sequence[TrialRecord]) -> bool:
    return any(trial.unfinished for trial in trials)


def no_space(folder: SweepFolder) -> SweepStoppedError:
    """The error of a sweep that ends because the disk is full."""
    return SweepStoppedError(
        f"sweep {folder.name}: the disk is full; finished trials are safe. Free some space, then: "
        f"{folder.command('resume')}"
    )
