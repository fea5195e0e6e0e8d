"""The end of a sweep: confirm the best trials, choose the winner, score it once on the test split."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from lorasweep.training.errors import TrainingError
from lorasweep.training.metrics import misfit
from lorasweep.training.scores.noise import bootstrap_intervals
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.commands import shell_command
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import checkpoint_thresholds
from lorasweep.tuning.record.predictions import TEST_FILE
from lorasweep.tuning.record.reported import PROBE_FILE
from lorasweep.tuning.record.results import Confirmed, Reference, SweepResult, UnmergedReference, Winner
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.plan.plan import SweepPlan, alone, trial_setup, untuned_settings
from lorasweep.tuning.sweep.winner import phases
from lorasweep.tuning.sweep.winner.after_trials import (
    CheckpointError,
    predict_test,
    predict_validation,
    score_after_merging,
    score_test,
    train_reference,
    unmerged_data,
)
from lorasweep.tuning.sweep.winner.choice import choices, choose, rule_text
from lorasweep.tuning.sweep.winner.confirm import confirm
from lorasweep.tuning.sweep.winner.known_start import (
    START,
    UNTUNED,
    Comparison,
    prediction_tensors,
    same_weights,
)
from lorasweep.tuning.sweep.winner.latency import best_of_bases, text_milliseconds
from lorasweep.tuning.sweep.winner.noise import near_trials
from lorasweep.tuning.sweep.winner.references import References
from lorasweep.tuning.sweep.winner.steps import optional_step, reason, step_of
from lorasweep.tuning.sweep.winner.thresholds import set_rule, set_thresholds, sweep_scorer, thresholds
from lorasweep.tuning.trials.remote import run_alone
from lorasweep.tuning.trials.shares import Resources
from lorasweep.tuning.trials.trial import TrialSetup

Phase = Callable[[str], None]
log = logging.getLogger("lorasweep")


def choose_winner(
    plan: SweepPlan,
    folder: SweepFolder,
    data: object,
    trials: Sequence[TrialRecord],
    phase: Phase,
    earlier: SweepResult | None = None,
    references: References | None = None,
) -> Iterator[dict[str, Any]]:
    """Choose the winner, score it, and train what it is compared with.

    Args:
        data: Ray's reference to the encoded data set.
        phase: called with the present step.
        earlier: the result before the sweep was resumed or extended. Its test scores stay on record and are not
            computed again.
        references: what the winner is compared with, where its training has begun.

    Yields:
        The fields of the sweep's result that are known so far; the last ones are all of them.

    Raises:
        TrainingError: every trial failed, or the winner cannot be scored; one line says why and what to do.
    """
    config = plan.config
    missing: dict[str, str] = {}

    def optional(step: str) -> AbstractContextManager[None]:
        phase(step)
        return optional_step(folder, step, missing)

    references = references or References(plan, data, earlier)
    resources = references.resources
    run = partial(run_alone, config.resources.address)
    setup = trial_setup(plan, resources)
    labels, rule = plan.dataset.test.labels, config.choice.threshold
    several = plan.dataset.multi_label
    rule = set_rule(config) if several else rule
    scorer = sweep_scorer(config, plan.dataset.label_names, several)
    tested = tested_before(earlier)

    def scored(best: TrialRecord) -> Winner:
        known = next((entry for entry in tested if same_weights(entry, best)), None)
        stored = known is not None and known is tested[-1] and (folder.winner / TEST_FILE).is_file()
        if known is not None and stored and rule == (known.thresholds.rule if known.thresholds else None):
            return known
        phase(step := f"{phases.SCORING} {best.id} on the test split")
        with step_of(folder, step):
            logits, files = run(resources, predict_test, best.hyperparameters, best.checkpoint, data, setup)
            cuts = checkpoint_thresholds(files[PROBE_FILE], rule) if several else np.zeros(0)
            write_winner(folder.winner, files, logits, cuts)
            own = scorer.fixed(cuts)

            def validation() -> tuple[np.ndarray, np.ndarray]:
                arguments = best.hyperparameters, best.checkpoint, data, setup
                return run(resources, predict_validation, *arguments), plan.dataset.validation.labels

            test = score_test(logits, labels, own)
            interval = bootstrap_intervals(own.outcomes(logits, labels), own.metrics)
            found = None
            if several:
                found = set_thresholds(rule or "", own, test, interval)
            elif rule:
                found = thresholds(rule, scorer, logits, labels, validation)
            return Winner(
                id=best.id,
                score=best.score or 0.0,
                rung=best.best_rung,
                hyperparameters=best.hyperparameters,
                test=test,
                interval=interval,
                thresholds=found,
            )

    confirmed = confirm(plan, folder, data, trials, phase, missing)
    winner = _first_that_can_be_scored(plan, folder, trials, confirmed, scored, missing)
    fields: dict[str, Any] = {
        "winner": winner.model_copy(
            update={"rule": rule_text(config, bool(confirmed), bases=len(plan.bases) > 1)}
        ),
        "confirmed": confirmed,
        "choices": choices(trials, config),
        "latency_ms": earlier.latency_ms if earlier else {},
        "also_tested": tuple(entry for entry in tested if entry.id != winner.id),
        "start": None,
        "over_start": None,
        "over_untuned": None,
        "untuned": earlier.untuned if earlier else None,
        "baselines": earlier.baselines if earlier else {},
        "missing": missing,
    }
    won = next(trial for trial in trials if trial.id == winner.id)
    fields["near"] = near_trials(folder, trials, won, config.training.metric, plan.dataset.label_names)
    yield fields

    def predict(trial: TrialRecord) -> np.ndarray:
        phase(f"{phases.START} {trial.id} on the test split")
        logits, _ = run(resources, predict_test, trial.hyperparameters, trial.checkpoint, data, setup)
        return np.asarray(logits)

    comparison = Comparison(folder, config.training.metric, labels, predict, scorer, rule)
    with optional_step(folder, phases.START, missing):
        start = comparison.start(trials, winner, earlier.start if earlier else None)
        fields["start"] = start
        if start is not None and start.id != winner.id:
            fields["over_start"] = comparison.gain_over(START, winner, start)
    yield fields
    if references.want_baselines:
        with optional(phases.LINEAR_MODEL):
            predicted = references.baselines()
            fields["baselines"] = {
                key: score_test(values, labels, scorer) for key, values in predicted.items()
            }
        yield fields
    base_model = winner.hyperparameters.base_model
    known_untuned = fields["untuned"]
    other_base = known_untuned is not None and known_untuned.hyperparameters.base_model != base_model
    if references.want_untuned or (config.compare_untuned and other_base):
        with optional(phases.UNTUNED):
            # After a winner of another base model, they are trained on this one's.
            fields["untuned"] = None
            told = _told(plan, phase, phases.UNTUNED)
            reference = references.untuned(*told, base_model=base_model)
            comparison.store(UNTUNED, reference.logits, reference.thresholds)
            fields["untuned"] = Reference(
                hyperparameters=untuned_settings(plan, base_model),
                score=reference.validation_score,
                test=score_test(reference.logits, labels, scorer.fixed(reference.thresholds)),
                seconds=reference.seconds,
            )
        yield fields
    if fields["untuned"] is not None:
        fields["over_untuned"] = comparison.gain_over(UNTUNED, winner, fields["untuned"])
    resources = alone(plan)
    setup = trial_setup(plan, resources)
    if len(plan.bases) > 1:
        with optional(phases.LATENCY):
            fields["latency_ms"] = run(
                resources, text_milliseconds, best_of_bases(plan, folder.trials()), data, setup
            )
        yield fields
    with optional_step(folder, phases.UNMERGED, missing):
        fields["unmerged"] = unmerged_reference(plan, folder, winner.hyperparameters, resources, setup, phase)
    yield fields


def tested_before(earlier: SweepResult | None) -> list[Winner]:
    """All that an earlier result has scored on the test split; the last one's predictions are on disk."""
    if earlier is None:
        return []
    return [*earlier.also_tested, *([earlier.winner] if earlier.winner else [])]


def _first_that_can_be_scored(
    plan: SweepPlan,
    folder: SweepFolder,
    trials: Sequence[TrialRecord],
    confirmed: Sequence[Confirmed],
    scored: Callable[[TrialRecord], Winner],
    missing: dict[str, str],
) -> Winner:
    """The best trial, scored; the next best one where its checkpoint is lost."""
    name, left = plan.config.name, list(trials)
    while best := choose(left, plan.config, confirmed) or choose(left, plan.config):
        try:
            return scored(best)
        except TrainingError as error:
            if not isinstance(error.__cause__, CheckpointError):
                raise
            step = f"{phases.SCORING} {best.id} on the test split"
            missing[step] = reason(error.__cause__)
            log.warning("%s failed (%s); the next best trial is taken", step, missing[step])
            left.remove(best)
    if missing:
        trials_then = str(len(searched_trials(folder.trials())) + 1)
        more = shell_command(folder.mlruns, "run", "--name", name, "--trials", trials_then, "--extend")
        raise TrainingError(
            f"sweep {name}: no trial has a checkpoint left to score on the test split; the first: "
            f"{next(iter(missing.values()))}; restore it, then: {folder.command('resume')}; or train more: {more}"
        )
    kind = "finalists" if trials and trials[0].finalist_of is not None else "trials"
    errors = [trial.error for trial in trials if trial.error]
    first = errors[0] if errors else "no trial reached its first evaluation"
    raise TrainingError(
        f"sweep {name}: all {len(trials)} {kind} failed; the first: {first}; fix that, then: "
        f"{folder.command('resume')}"
    )


def unmerged_reference(
    plan: SweepPlan,
    folder: SweepFolder,
    hyperparameters: Hyperparameters,
    resources: Resources,
    setup: TrialSetup,
    phase: Phase,
) -> UnmergedReference | None:
    """Train hyperparameters on the unmerged labels of the same rows, with the same budget and seed.

    Written at once and read again by a resumed sweep. None if no labels were merged.
    """
    dataset = plan.dataset
    if not dataset.original_names:
        return None
    written = folder.unmerged()
    if written is not None and written.hyperparameters == hyperparameters:
        return written
    phase(phases.UNMERGED)
    data = unmerged_data(dataset, plan.encoded)
    address = plan.config.resources.address
    told = _told(plan, phase, phases.UNMERGED)
    merged_scorer = sweep_scorer(plan.config, dataset.label_names)
    setup = _for_labels(setup, dataset.original_names)
    trained = run_alone(address, resources, train_reference, hyperparameters, data, setup, *told)
    reference = UnmergedReference(
        hyperparameters=hyperparameters,
        classes=len(dataset.original_names),
        score=trained.validation_score,
        test=score_test(trained.logits, data.test.labels, setup.scorer(dataset.original_names)),
        merged=score_after_merging(dataset, trained.logits, merged_scorer),
        seconds=trained.seconds,
    )
    folder.write_unmerged(reference)
    return reference


def _for_labels(setup: TrialSetup, label_names: tuple[str, ...]) -> TrialSetup:
    """A setup for other labels: where the sweep's metric cannot be made of them, the best evaluation is by loss."""
    settings = setup.training_settings
    metric = settings.metric if misfit(settings.metric, label_names) is None else "loss"
    return replace(setup, training_settings=settings.model_copy(update={"metric": metric}), objective=None)


def _told(plan: SweepPlan, phase: Phase, step: str) -> tuple[Callable[[int], None], ...]:
    """What tells the rungs of a training as a phase; nothing in a cluster, where it runs in another process."""
    if plan.config.resources.address is not None:
        return ()
    rungs = plan.config.training.rungs
    return (lambda rung: phase(f"{step}: {rung} of {rungs} rungs done"),)


def write_winner(
    folder: Path, files: dict[str, bytes], logits: np.ndarray, thresholds: np.ndarray | None = None
) -> None:
    """Write the winner's weights, test logits and thresholds into the sweep's folder, apart from Ray's."""
    shutil.rmtree(folder, ignore_errors=True)  # an earlier winner's, if the sweep was extended
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    save_file(prediction_tensors(logits, () if thresholds is None else thresholds), folder / TEST_FILE)
