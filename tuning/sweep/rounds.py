"""Runs a sweep's trials in Ray Tune."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import ray
from ray import tune

from lorasweep.training.errors import SweepStoppedError, TrainingError
from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.results import TrialRecord
from lorasweep.tuning.search.searcher import make_searcher
from lorasweep.tuning.search.stopping import make_scheduler
from lorasweep.tuning.search.study import Unfinished
from lorasweep.tuning.sweep.choice import contenders
from lorasweep.tuning.sweep.plan import SweepPlan, trial_setup
from lorasweep.tuning.trials.interrupt import clean_stop
from lorasweep.tuning.trials.recorder import Recorder, past_scores, ray_trial_name
from lorasweep.tuning.trials.trial import RUNG_SCORE, run_trial


def run_trials(
    plan: SweepPlan,
    folder: SweepFolder,
    data: ray.ObjectRef,
    past: list[TrialRecord],
    unfinished: list[Unfinished],
    listener: SweepListener,
    all_started: Callable[[], None],
) -> list[TrialRecord]:
    """Let Ray Tune run the trials that are missing; returns all of them by number.

    Args:
        data: Ray's reference to the encoded data set.
        past: records from earlier runs of the sweep.
        unfinished: trials to continue.
        all_started: called when the last trial has started.

    Raises:
        TrainingError: several trials in a row failed for the same reason.
        SweepStoppedError: the disk is full.
    """
    config, settings, resources = plan.config, plan.config.training, plan.resources
    ended = sum(not trial.unfinished for trial in past)
    if ended >= config.search.trials:
        return past
    searcher = make_searcher(
        plan.space,
        config.search,
        config.objective,
        rungs=settings.rungs,
        seed=settings.seed,
        concurrency=resources.concurrency,
        study_name=config.name,
        study_url=folder.study_url,
        unfinished=unfinished,
    )
    can_win = partial(contenders, config=config)
    recorder = Recorder(folder, settings.rungs, list(plan.space.searched), listener, past, can_win)
    recorder.when_started(config.search.trials - ended, all_started)
    recorder.prune()
    setup = trial_setup(plan, resources)
    # Each run has its own folder: a continued trial numbers its checkpoints from 0 again.
    storage = config.resources.storage
    attempt = folder.next_attempt()
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, data=ray.get(data), setup=setup),
            {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=make_scheduler(config.search, config.objective, settings.rungs, past_scores(past)),
            num_samples=config.search.trials - ended,
            max_concurrent_trials=resources.concurrency,
            reuse_actors=True,
            trial_name_creator=ray_trial_name,
            trial_dirname_creator=ray_trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"{config.name}/run-{attempt}" if storage else f"run-{attempt}",
            storage_path=storage or str(folder.ray.resolve()),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute=RUNG_SCORE,
                checkpoint_score_order="max" if higher_is_better(settings.metric) else "min",
            ),
            failure_config=tune.FailureConfig(max_failures=config.search.max_failures),
            stop=recorder.watch,
            callbacks=[recorder],
            verbose=0,
            # In a notebook Ray would clear the cell, and what we draw in it, for a reporter of its own.
            progress_reporter=tune.CLIReporter(),
        ),
    )
    with clean_stop(listener.stopping):
        tuner.fit()
    if recorder.watch.disk_full:
        raise no_space(folder)
    if recorder.watch.reason:
        raise TrainingError(
            f"sweep {folder.name}: {recorder.watch.reason}; fix that, then: {folder.command('resume')}"
        )
    return sorted(recorder.trials.values(), key=lambda trial: trial.number)


def no_space(folder: SweepFolder) -> SweepStoppedError:
    """The error of a sweep that ends because the disk is full."""
    return SweepStoppedError(
        f"sweep {folder.name}: the disk is full; finished trials are safe. Free some space, then: "
        f"{folder.command('resume')}"
    )
