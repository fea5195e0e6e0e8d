"""A sweep from its plan to its result: trials, winner, record; and on from where it was interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from ray import tune

from lorasweep.training.errors import LorasweepError, SweepStoppedError, TrainingError, first_line
from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import (
    SweepFolder,
    SweepResult,
    TrialRecord,
    rank_trials,
)
from lorasweep.tuning.record.reported import is_disk_full
from lorasweep.tuning.search.searcher import make_searcher
from lorasweep.tuning.search.stopping import make_scheduler
from lorasweep.tuning.search.study import Unfinished
from lorasweep.tuning.sweep.choice import contenders
from lorasweep.tuning.sweep.listeners import Display, Store
from lorasweep.tuning.sweep.plan import SweepPlan, trial_setup
from lorasweep.tuning.sweep.start import reconcile_records
from lorasweep.tuning.sweep.winner import choose_winner
from lorasweep.tuning.trials.cluster import start_ray, stop_ray
from lorasweep.tuning.trials.failures import StopOnFailures
from lorasweep.tuning.trials.interrupt import clean_stop
from lorasweep.tuning.trials.recorder import Listener, Recorder, past_scores, ray_trial_name
from lorasweep.tuning.trials.trial import RUNG_SCORE, run_trial

log = logging.getLogger("lorasweep")


def run_sweep(plan: SweepPlan, folder: SweepFolder, display: Display, store: Store) -> SweepResult:
    """Run a planned sweep in its folder, from the beginning or from where its records stand.

    Finished trials stay as they are, those that were left running go on from their last checkpoint, and the
    rest is proposed. What has finished is on disk before anything else happens with it.

    Raises:
        TrainingError: every trial failed, or several in a row for one reason; that reason is named.
        SweepStoppedError: the disk is full; the sweep can go on when there is space.
    """
    started = time.monotonic()
    earlier = folder.result()
    seconds_before = earlier.seconds if earlier else 0.0
    metric = plan.config.training.metric

    def result(**fields: object) -> SweepResult:
        seconds = seconds_before + time.monotonic() - started
        return SweepResult.model_validate({"metric": metric, "seconds": seconds, **fields})

    with folder.lock():
        ended = result(state="interrupted")
        if earlier is not None and earlier.state == "finished":
            # It is being extended: killed from here on, it has not finished any more.
            _write_end(folder, ended, earlier)
        try:
            store.begin(plan.summary(), folder.trials())
            past, unfinished = reconcile_records(plan, folder)
            display.begin(plan, past)
            resources = plan.resources
            start_ray(plan.config.resources.address, resources.cpus, resources.gpus)
            import ray

            data = ray.put(plan.encoded)
            trials = _run_trials(plan, folder, data, past, unfinished, [store, display], display)
            if len(trials) == plan.config.search.trials and all(trial.state != "running" for trial in trials):
                ended = result(state="failed")
                fields = choose_winner(plan, folder, data, trials, display.phase, earlier)
                ended = result(state="finished", **fields)
        except LorasweepError as error:
            state = "interrupted" if isinstance(error, SweepStoppedError) else "failed"
            ended = result(state=state, error=str(error))
            raise
        except KeyboardInterrupt:
            ended = result(state="interrupted")
        except Exception as error:
            if not is_disk_full(error):
                raise
            stopped = _no_space(folder)
            ended = result(state="interrupted", error=str(stopped))
            raise stopped from error
        finally:
            try:
                _write_end(folder, ended, earlier)
                display.phase("writing the best adapters and the record")
                store.end(ended, _best_adapters(plan, folder, ended))
                if store.published and ended.state == "finished":
                    ended = register_winner(ended, plan.config, store, display.phase)
                    _write_end(folder, ended, earlier)
            finally:
                # Also on a Ctrl-C meanwhile: a terminal wants its cursor back.
                display.end()
                stop_ray()
    return ended


def register_winner(
    result: SweepResult, config: SweepConfig, store: Store, tell: Callable[[str], None]
) -> SweepResult:
    """The result of a sweep that the store has all of, its winner registered where that is asked for."""
    result = result.model_copy(update={"published": True})
    if not config.registry.enabled or result.winner is None:
        return result
    tell("registering the winner")
    try:
        return result.model_copy(update={"registered": store.register(config.registered_name)})
    except Exception as error:  # the sweep is done and on record, whatever becomes of this
        later = f"lorasweep register {config.name} --name {config.registered_name}"
        log.warning("the winner is not registered (%s); later: %s", first_line(error), later)
        log.debug("why the winner is not registered", exc_info=True)
        return result


def _write_end(folder: SweepFolder, ended: SweepResult, earlier: SweepResult | None) -> None:
    if ended.state != "finished" and earlier is not None:
        # A sweep that was being extended: what is known of the test split stays known.
        tested = [*earlier.also_tested, *([earlier.winner] if earlier.winner else [])]
        kept = {"also_tested": tuple(tested), "untuned": earlier.untuned, "baselines": earlier.baselines}
        ended = ended.model_copy(update=kept)
    with suppress(OSError):  # a full disk has been told of already, and without this file a sweep goes on too
        folder.write_result(ended)


def _no_space(folder: SweepFolder) -> SweepStoppedError:
    return SweepStoppedError(
        f"sweep {folder.name}: the disk is full; what had finished is kept. Free some space, then: "
        f"lorasweep resume {folder.name}"
    )


def _run_trials(
    plan: SweepPlan,
    folder: SweepFolder,
    data: object,
    past: list[TrialRecord],
    unfinished: list[Unfinished],
    listeners: list[Listener],
    display: Display,
) -> list[TrialRecord]:
    config, settings, resources = plan.config, plan.config.training, plan.resources
    ended = sum(trial.state != "running" for trial in past)
    if ended >= config.search.trials:
        return past
    higher = higher_is_better(settings.metric)
    searcher = make_searcher(
        plan.space,
        config.search,
        settings.metric,
        rungs=settings.rungs,
        seed=settings.seed,
        concurrency=resources.concurrency,
        study_name=config.name,
        study_url=folder.study_url,
        unfinished=unfinished,
    )
    may_win = partial(contenders, config=config)
    recorder = Recorder(folder, settings.rungs, list(plan.space.searched), listeners, past, may_win)
    recorder.prune()
    setup = trial_setup(plan, resources)
    # Each run of a sweep has a folder of its own: a trial that goes on counts its checkpoints anew.
    storage = config.resources.storage
    attempt = folder.next_attempt()
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, data=_get(data), setup=setup),
            {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=make_scheduler(config.search, settings.metric, settings.rungs, past_scores(past)),
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
                checkpoint_score_order="max" if higher else "min",
            ),
            failure_config=tune.FailureConfig(max_failures=config.search.max_failures),
            stop=StopOnFailures(recorder.watch),
            callbacks=[recorder],
            verbose=0,
        ),
    )
    with clean_stop(display.stopping):
        tuner.fit()
    if recorder.watch.disk_full:
        raise _no_space(folder)
    if recorder.watch.reason:
        raise TrainingError(
            f"sweep {folder.name}: {recorder.watch.reason}; mend that, then: lorasweep resume {folder.name}"
        )
    return sorted(recorder.trials.values(), key=lambda trial: trial.number)


def _best_adapters(plan: SweepPlan, folder: SweepFolder, result: SweepResult) -> dict[str, Path]:
    """Write the best trials as checked adapter folders; what cannot be written is told and left out."""
    from lorasweep.tuning.adapters.export.sweep import export_sweep

    if result.state != "finished" or result.winner is None:
        return {}
    ranked = rank_trials(folder.trials(), higher_is_better(plan.config.training.metric))
    best = [trial.id for trial in ranked if trial.checkpoint][: plan.config.keep]
    adapters: dict[str, Path] = {}
    # A winner by size, speed or other seeds need not be among the best by score.
    for trial_id in dict.fromkeys((result.winner.id, *best)):
        out = folder.path / "best" / trial_id
        try:
            if not out.exists():
                export_sweep(folder, out, trial=trial_id)
            adapters[trial_id] = out
        except LorasweepError as error:
            log.warning("%s", error)
    return adapters


def _get(reference: object) -> object:
    import ray

    return ray.get(reference)
