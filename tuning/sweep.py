"""A sweep from its plan to its result: trials, winner, record; and on from where it was interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ray import tune

from training.data import Dataset
from training.errors import LorasweepError, TrainingError
from training.evaluate import higher_is_better
from training.settings import UNTUNED, Hyperparameters
from training.target_modules import PRESETS
from tuning.cluster import Resources, start_ray, stop_ray
from tuning.interrupt import clean_stop
from tuning.plan import SweepPlan, plan_sweep
from tuning.record import Reference, SweepFolder, SweepResult, TrialRecord, Winner, rank_trials
from tuning.recorder import Listener, Recorder, past_scores, ray_trial_name, settle
from tuning.scheduler import make_scheduler
from tuning.searcher import SCORE, Unfinished, make_searcher, study_outcomes
from tuning.trainable import RUNG_SCORE, TrialSetup, run_trial
from tuning.winner import keep_winner, predict_test, run_remote, score_test, train_reference

log = logging.getLogger("lorasweep")


class Display(Listener, Protocol):
    """What shows a sweep to a person as it goes."""

    def begin(self, plan: SweepPlan, past: Sequence[TrialRecord]) -> None:
        """The trials begin."""

    def phase(self, text: str) -> None:
        """What is being done now, when it is not trials."""

    def stopping(self) -> None:
        """The user asked to stop."""

    def end(self) -> None:
        """Nothing more will come."""


class Store(Listener, Protocol):
    """What keeps a sweep for later browsing: MLflow."""

    def start(self, summary: Mapping[str, Any]) -> None:
        """The sweep begins or goes on."""

    def finish(self, result: SweepResult, adapters: Mapping[str, Path]) -> object:
        """The sweep ended, in whatever way."""


def run_sweep(plan: SweepPlan, folder: SweepFolder, display: Display, store: Store) -> SweepResult:
    """Run a planned sweep in its folder, from the beginning or from where its records stand.

    Finished trials stay as they are, those that were left running go on from their last checkpoint, and the
    rest is proposed. What has finished is on disk before anything else happens with it.

    Raises:
        TrainingError: every trial failed; the first one's reason is named.
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
        try:
            store.start(plan.summary())
            past = folder.trials()
            display.begin(plan, past)
            resources = plan.resources
            start_ray(plan.config.resources.address, resources.cpus, resources.gpus)
            import ray

            data = ray.put(plan.encoded)
            trials = _run_trials(plan, folder, data, past, [store, display], display)
            if any(trial.state == "running" for trial in trials) or len(trials) < plan.config.search.trials:
                return ended
            ended = result(state="failed")
            winner, reference = _choose(plan, folder, data, trials, display)
            ended = result(state="finished", winner=winner, untuned=reference)
            return ended
        except LorasweepError as error:
            ended = result(state="failed", error=str(error))
            raise
        except KeyboardInterrupt:
            ended = result(state="interrupted")
            return ended
        finally:
            try:
                folder.write_result(ended)
                display.phase("writing the best adapters and the record")
                store.finish(ended, _best_adapters(plan, folder) if ended.state == "finished" else {})
            finally:
                # Also on a Ctrl-C meanwhile: a terminal wants its cursor back.
                display.end()
                stop_ray()


def resume_plan(folder: SweepFolder) -> SweepPlan:
    """The plan of a sweep that exists, with its own configuration and its own rows."""
    config = folder.config()
    return plan_sweep(config, Dataset.load(folder.data), folder.space(config.search.space))


def create_folder(plan: SweepPlan, mlruns: Path) -> SweepFolder:
    """Make a new sweep's folder: configuration, plan, prepared rows."""
    folder = SweepFolder(mlruns, plan.config.name)
    folder.create(plan.config)
    try:
        folder.write_plan(plan.summary())
        folder.write_space(plan.space)
        plan.dataset.save(folder.data)
    except BaseException:
        folder.remove()
        raise
    return folder


def _run_trials(
    plan: SweepPlan,
    folder: SweepFolder,
    data: object,
    past: list[TrialRecord],
    listeners: list[Listener],
    display: Display,
) -> list[TrialRecord]:
    config, settings, resources = plan.config, plan.config.training, plan.resources
    if past:
        past = settle(folder, past, study_outcomes(config.name, folder.study_url))
    unfinished = [
        Unfinished(
            trial.number,
            trial.settings,
            trial.last_checkpoint,
            tuple(float(evaluation[SCORE]) for evaluation in trial.evaluations),
        )
        for trial in past
        if trial.state == "running"
    ]
    ended = len(past) - len(unfinished)
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
        ended={trial.number for trial in past if trial.state != "running"},
    )
    recorder = Recorder(folder, settings.rungs, list(plan.space.searched), listeners, past)
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
            callbacks=[recorder],
            verbose=0,
        ),
    )
    with clean_stop(display.stopping):
        tuner.fit()
    return sorted(recorder.trials.values(), key=lambda trial: trial.number)


def alone(plan: SweepPlan) -> Resources:
    """What one task gets that runs when the trials are done: the cores of all of them, on this machine."""
    resources = plan.resources
    if plan.config.resources.address is not None:
        return resources
    return replace(resources, cpus_per_trial=resources.cpus_per_trial * resources.concurrency, concurrency=1)


def trial_setup(plan: SweepPlan, resources: Resources) -> TrialSetup:
    """What all trials of a planned sweep share."""
    return TrialSetup(
        base=plan.base,
        settings=plan.config.training,
        threads=resources.cpus_per_trial,
        gpu_share=resources.gpus_per_trial,
        storage=plan.config.resources.storage,
    )


def _choose(
    plan: SweepPlan, folder: SweepFolder, data: object, trials: list[TrialRecord], display: Display
) -> tuple[Winner, Reference | None]:
    import ray

    ranked = rank_trials(trials, higher_is_better(plan.config.training.metric))
    ranked = [trial for trial in ranked if trial.checkpoint]
    if not ranked:
        reason = next(
            (trial.error for trial in trials if trial.error), "no trial reached its first evaluation"
        )
        raise TrainingError(f"sweep {folder.name}: all {len(trials)} trials failed; the first: {reason}")
    best = ranked[0]
    resources = alone(plan)
    setup = trial_setup(plan, resources)
    display.phase(f"scoring {best.id} on the test split")
    labels = plan.dataset.test.labels
    scoring = run_remote(resources, predict_test, best.settings, best.checkpoint, data, setup)
    logits, files = ray.get(scoring)
    keep_winner(folder.winner, files, logits)
    winner = Winner(
        id=best.id, score=best.score or 0.0, settings=best.settings, test=score_test(logits, labels)
    )
    if not plan.config.compare_untuned:
        return winner, None
    display.phase("training the untuned settings for comparison")
    settings = untuned_settings(plan).model_dump()
    tested = ray.get(run_remote(resources, train_reference, settings, data, setup))
    return winner, Reference(
        settings=settings,
        score=tested.validation_score,
        test=score_test(tested.logits, labels),
        seconds=tested.seconds,
    )


def untuned_settings(plan: SweepPlan) -> Hyperparameters:
    """The usual untuned settings; for a model without presets with the first pattern of the space."""
    patterns = [choice for choice in plan.target_modules if choice not in PRESETS]
    return UNTUNED.model_copy(update={"target_modules": patterns[0]}) if patterns else UNTUNED


def _best_adapters(plan: SweepPlan, folder: SweepFolder) -> dict[str, Path]:
    """Write the best trials as checked adapter folders; what cannot be written is told and left out."""
    from tuning.export import export_sweep

    ranked = rank_trials(folder.trials(), higher_is_better(plan.config.training.metric))
    adapters: dict[str, Path] = {}
    for trial in [trial for trial in ranked if trial.checkpoint][: plan.config.keep]:
        out = folder.path / "best" / trial.id
        try:
            if not out.exists():
                export_sweep(folder, out, trial=trial.id)
            adapters[trial.id] = out
        except LorasweepError as error:
            log.warning("%s", error)
    return adapters


def _get(reference: object) -> object:
    import ray

    return ray.get(reference)
