"""The end of a sweep: confirm the best trials, choose the winner, score it once on the test split."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from lorasweep.training.errors import TrainingError
from lorasweep.training.scores.scores import bootstrap_intervals
from lorasweep.training.settings import Hyperparameters, higher_is_better
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.predictions import TEST_FILE
from lorasweep.tuning.record.results import (
    Confirmed,
    Reference,
    SweepResult,
    TrialRecord,
    UnmergedReference,
    Winner,
    rank_trials,
)
from lorasweep.tuning.sweep import phases
from lorasweep.tuning.sweep.after_trials import (
    predict_test,
    run_alone,
    run_remote,
    score_after_merging,
    score_test,
    test_baselines,
    train_again,
    train_reference,
    unmerged_data,
)
from lorasweep.tuning.sweep.choice import choices, choose, rule_text
from lorasweep.tuning.sweep.plan import SweepPlan, alone, trial_setup, untuned_settings
from lorasweep.tuning.trials.cluster import Resources
from lorasweep.tuning.trials.trial import TrialSetup

Phase = Callable[[str], None]


def choose_winner(
    plan: SweepPlan,
    folder: SweepFolder,
    data: object,
    trials: Sequence[TrialRecord],
    phase: Phase,
    earlier: SweepResult | None = None,
) -> dict[str, Any]:
    """The fields of a finished sweep's result.

    Args:
        data: Ray's reference to the encoded data set.
        phase: called with the present step.
        earlier: the result before the sweep was extended. Its test scores stay on record and are not computed again.

    Raises:
        TrainingError: every trial failed; the message gives the first one's reason.
    """
    confirmed = confirm(plan, folder, data, trials, phase)
    best = choose(trials, plan.config, confirmed)
    if best is None:
        reason = next(
            (trial.error for trial in trials if trial.error), "no trial reached its first evaluation"
        )
        raise TrainingError(f"sweep {folder.name}: all {len(trials)} trials failed; the first: {reason}")
    resources = alone(plan)
    run = partial(run_alone, plan.config.resources.address)
    setup = trial_setup(plan, resources)
    labels = plan.dataset.test.labels
    tested = [*earlier.also_tested, *([earlier.winner] if earlier.winner else [])] if earlier else []
    winner = next((entry for entry in tested if entry.id == best.id), None)
    if winner is None or not (folder.winner / TEST_FILE).is_file() or winner is not tested[-1]:
        phase(f"{phases.SCORING} {best.id} on the test split")
        logits, files = run(resources, predict_test, best.hyperparameters, best.checkpoint, data, setup)
        write_winner(folder.winner, files, logits)
        winner = Winner(
            id=best.id,
            score=best.score or 0.0,
            hyperparameters=best.hyperparameters,
            test=score_test(logits, labels),
            interval=bootstrap_intervals(logits, labels),
        )
    fields: dict[str, Any] = {
        "winner": winner.model_copy(update={"rule": rule_text(plan.config, bool(confirmed))}),
        "confirmed": confirmed,
        "choices": choices(trials, plan.config),
        "also_tested": tuple(entry for entry in tested if entry.id != best.id),
        "untuned": earlier.untuned if earlier else None,
        "baselines": earlier.baselines if earlier else {},
    }
    if plan.config.choice.baselines and not fields["baselines"]:
        phase(phases.LINEAR_MODEL)
        one_core = replace(resources, cpus_per_trial=1, gpus_per_trial=0)
        predicted = run(one_core, test_baselines, plan.dataset)
        fields["baselines"] = {name: score_test(values, labels) for name, values in predicted.items()}
    if plan.config.compare_untuned and fields["untuned"] is None:
        phase(phases.UNTUNED)
        untuned = untuned_settings(plan)
        told = _told(plan, phase, phases.UNTUNED)
        reference = run(resources, train_reference, untuned, data, setup, *told)
        fields["untuned"] = Reference(
            hyperparameters=untuned,
            score=reference.validation_score,
            test=score_test(reference.logits, labels),
            seconds=reference.seconds,
        )
    fields["unmerged"] = unmerged_reference(plan, folder, best.hyperparameters, resources, setup, phase)
    return fields


def confirm(
    plan: SweepPlan, folder: SweepFolder, data: object, trials: Sequence[TrialRecord], phase: Phase
) -> tuple[Confirmed, ...]:
    """Retrain the best trials on other seeds, best mean first; empty without `--confirm`.

    Each score is written at once, so an interrupted sweep does not train for it again.
    """
    import ray

    count, seeds = plan.config.choice.confirmed
    metric = plan.config.training.metric
    best = rank_trials((trial for trial in trials if trial.checkpoint), metric)[:count]
    first = plan.config.training.seed + 1
    scores = folder.confirmations()
    waiting: dict[Any, tuple[str, str]] = {}
    setup = trial_setup(plan, plan.resources)
    for trial in best:
        for seed in range(first, first + seeds):
            if str(seed) not in scores.setdefault(trial.id, {}):
                task = run_remote(plan.resources, train_again, trial.hyperparameters, seed, data, setup)
                waiting[task] = (trial.id, str(seed))
    total = len(waiting)
    while waiting:
        phase(f"{phases.CONFIRMING} {len(best)} on other seeds: {total - len(waiting)} of {total} done")
        (done,), _ = ray.wait(list(waiting))
        trial_id, seed_name = waiting.pop(done)
        scores[trial_id][seed_name] = ray.get(done)
        folder.write_confirmations(scores)
    wanted = [str(seed) for seed in range(first, first + seeds)]
    entries = [_confirmed(trial.id, {seed: scores[trial.id][seed] for seed in wanted}) for trial in best]
    return tuple(sorted(entries, key=lambda entry: entry.mean, reverse=higher_is_better(metric)))


def _confirmed(trial_id: str, scores: dict[str, float]) -> Confirmed:
    values = list(scores.values())
    spread = stdev(values) if len(values) > 1 else 0.0
    return Confirmed(id=trial_id, scores=scores, mean=mean(values), spread=spread)


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
    told = _told(plan, phase, phases.UNMERGED)
    trained = run_alone(
        plan.config.resources.address, resources, train_reference, hyperparameters, data, setup, *told
    )
    reference = UnmergedReference(
        hyperparameters=hyperparameters,
        classes=len(dataset.original_names),
        score=trained.validation_score,
        test=score_test(trained.logits, data.test.labels),
        merged=score_after_merging(dataset, trained.logits),
        seconds=trained.seconds,
    )
    folder.write_unmerged(reference)
    return reference


def _told(plan: SweepPlan, phase: Phase, step: str) -> tuple[Callable[[int], None], ...]:
    """What tells the rungs of a training as a phase; nothing in a cluster, where it runs in another process."""
    if plan.config.resources.address is not None:
        return ()
    rungs = plan.config.training.rungs
    return (lambda rung: phase(f"{step}: {rung} of {rungs} rungs done"),)


def write_winner(folder: Path, files: dict[str, bytes], logits: np.ndarray) -> None:
    """Write the winner's weights and test logits into the sweep's folder, apart from Ray's."""
    shutil.rmtree(folder, ignore_errors=True)  # an earlier winner's, if the sweep was extended
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    save_file({"logits": logits}, folder / TEST_FILE)
