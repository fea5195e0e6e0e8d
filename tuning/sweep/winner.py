"""The end of a sweep: the best confirmed on other seeds, a winner chosen, and scored once on the test split."""

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
from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.folder import (
    Confirmed,
    Reference,
    SweepFolder,
    SweepResult,
    TrialRecord,
    Winner,
    rank_trials,
)
from lorasweep.tuning.record.predictions import TEST_FILE
from lorasweep.tuning.sweep.after_trials import (
    predict_test,
    run_alone,
    run_remote,
    score_test,
    test_baselines,
    train_again,
    train_reference,
)
from lorasweep.tuning.sweep.choice import choices, choose, rule_text
from lorasweep.tuning.sweep.plan import SweepPlan, alone, trial_setup, untuned_settings
from lorasweep.tuning.sweep.unmerged import unmerged_reference

Tell = Callable[[str], None]


def choose_winner(
    plan: SweepPlan,
    folder: SweepFolder,
    data: object,
    trials: Sequence[TrialRecord],
    tell: Tell,
    earlier: SweepResult | None = None,
) -> dict[str, Any]:
    """The fields of a finished sweep's result.

    Args:
        data: Ray's reference to the encoded data set.
        tell: called with what is being done now.
        earlier: the result of fewer trials, where the sweep was extended: a test score that was looked at
            then is not looked at again, and stays on record.

    Raises:
        TrainingError: every trial failed; the first one's reason is named.
    """
    confirmed = confirm(plan, folder, data, trials, tell)
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
        tell(f"scoring {best.id} on the test split")
        logits, files = run(resources, predict_test, best.hyperparameters, best.checkpoint, data, setup)
        keep_winner(folder.winner, files, logits)
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
        tell("training a linear model for comparison")
        one = replace(resources, cpus_per_trial=1, gpus_per_trial=0)
        found = run(one, test_baselines, plan.dataset)
        fields["baselines"] = {name: score_test(values, labels) for name, values in found.items()}
    if plan.config.compare_untuned and fields["untuned"] is None:
        tell("training the untuned settings for comparison")
        untuned = untuned_settings(plan)
        reference = run(resources, train_reference, untuned, data, setup)
        fields["untuned"] = Reference(
            hyperparameters=untuned,
            score=reference.validation_score,
            test=score_test(reference.logits, labels),
            seconds=reference.seconds,
        )
    fields["unmerged"] = unmerged_reference(plan, folder, best.hyperparameters, resources, setup, tell)
    return fields


def confirm(
    plan: SweepPlan, folder: SweepFolder, data: object, trials: Sequence[TrialRecord], tell: Tell
) -> tuple[Confirmed, ...]:
    """Train the best trials' settings again on other seeds; the best mean first. Nothing without `--confirm`.

    Each score is on disk as soon as it is known, and is not trained for again.
    """
    import ray

    count, seeds = plan.config.choice.confirmed
    higher = higher_is_better(plan.config.training.metric)
    best = rank_trials([trial for trial in trials if trial.checkpoint], higher)[:count]
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
        tell(f"confirming the best {len(best)} on other seeds: {total - len(waiting)} of {total} done")
        (done,), _ = ray.wait(list(waiting))
        trial_id, seed_name = waiting.pop(done)
        scores[trial_id][seed_name] = ray.get(done)
        folder.write_confirmations(scores)
    wanted = [str(seed) for seed in range(first, first + seeds)]
    found = [_confirmed(trial.id, {seed: scores[trial.id][seed] for seed in wanted}) for trial in best]
    return tuple(sorted(found, key=lambda entry: -entry.mean if higher else entry.mean))


def _confirmed(trial_id: str, scores: dict[str, float]) -> Confirmed:
    values = list(scores.values())
    spread = stdev(values) if len(values) > 1 else 0.0
    return Confirmed(id=trial_id, scores=scores, mean=mean(values), spread=spread)


def keep_winner(folder: Path, files: dict[str, bytes], logits: np.ndarray) -> None:
    """Keep the winner's weights and its test logits in the sweep's folder, apart from Ray's."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier winner, where the sweep was extended
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    save_file({"logits": logits}, folder / TEST_FILE)
