"""The best trials' hyperparameters trained on other seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import Confirmed
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials
from lorasweep.tuning.sweep.plan.plan import SweepPlan, trial_setup
from lorasweep.tuning.sweep.winner import phases
from lorasweep.tuning.sweep.winner.after_trials import train_again
from lorasweep.tuning.sweep.winner.steps import optional_step
from lorasweep.tuning.trials.remote import RemoteCall


def confirm(
    plan: SweepPlan,
    folder: SweepFolder,
    data: object,
    trials: Sequence[TrialRecord],
    phase: Callable[[str], None],
    missing: dict[str, str],
) -> tuple[Confirmed, ...]:
    """Retrain the best trials on other seeds, best mean first; empty without `--confirm`.

    Each score is written at once, so an interrupted sweep does not train for it again. A trial of which a training
    fails is left out, and `missing` says why.
    """
    import ray

    count, seeds = plan.config.choice.confirmed
    metric = plan.config.training.metric
    best = rank_trials((trial for trial in trials if trial.checkpoint), metric)[:count]
    first = plan.config.training.seed + 1
    scores = folder.confirmations()
    waiting: dict[Any, tuple[RemoteCall, str, str]] = {}
    setup = trial_setup(plan, plan.resources)
    for trial in best:
        for seed in range(first, first + seeds):
            if str(seed) not in scores.setdefault(trial.id, {}):
                call = RemoteCall(plan.resources, train_again, trial.hyperparameters, seed, data, setup)
                waiting[call.task] = (call, trial.id, str(seed))
    total = len(waiting)
    while waiting:
        phase(f"{phases.CONFIRMING} {len(best)} on other seeds: {total - len(waiting)} of {total} done")
        (done,), _ = ray.wait(list(waiting))
        call, trial_id, seed_name = waiting.pop(done)
        with optional_step(folder, f"confirming {trial_id} on seed {seed_name}", missing):
            scores[trial_id][seed_name] = call.result()
            folder.write_confirmations(scores)
    wanted = [str(seed) for seed in range(first, first + seeds)]
    entries = [
        _confirmed(trial.id, {seed: scores[trial.id][seed] for seed in wanted})
        for trial in best
        if all(seed in scores[trial.id] for seed in wanted)
    ]
    return tuple(sorted(entries, key=lambda entry: entry.mean, reverse=higher_is_better(metric)))


def _confirmed(trial_id: str, scores: dict[str, float]) -> Confirmed:
    values = list(scores.values())
    spread = stdev(values) if len(values) > 1 else 0.0
    return Confirmed(id=trial_id, scores=scores, mean=mean(values), spread=spread)
