"""Chooses the winner: the best score, or the smallest or fastest trial with nearly that score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lorasweep.training.metrics import ALWAYS, Metric, higher_is_better, metric_words, unit_of
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.finalists import comparable
from lorasweep.tuning.record.results import Confirmed
from lorasweep.tuning.record.starts import start_ids
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials


def choose(
    trials: Sequence[TrialRecord], config: SweepConfig, confirmed: Sequence[Confirmed] = ()
) -> TrialRecord | None:
    """The winner among the trials that have a checkpoint; among the confirmed ones, by mean, if there are any."""
    metric = config.training.metric
    ranked = _with_checkpoint(trials, metric)
    if confirmed:
        means = {entry.id: entry.mean for entry in confirmed}
        ranked = rank_trials(
            (trial.model_copy(update={"score": means[trial.id]}) for trial in ranked if trial.id in means),
            metric,
        )
    if not ranked:
        return None
    near = within(ranked, metric, config.choice.margin)
    chosen = {"best": ranked[0], "smallest": _smallest(near, trials), "fastest": _fastest(near)}[
        config.choice.rule
    ]
    # As recorded, without the mean in place of the score.
    return next(trial for trial in trials if trial.id == chosen.id)


def within(ranked: Sequence[TrialRecord], metric: Metric, margin: float) -> list[TrialRecord]:
    """The best trial and those at most `margin` points (hundredths) worse."""
    best = ranked[0].score or 0.0
    # Rounding: 0.905 - 0.9 is not exactly 0.005.
    return [trial for trial in ranked if abs((trial.score or 0.0) - best) <= margin / 100 + 1e-9]


def contenders(trials: Sequence[TrialRecord], config: SweepConfig) -> list[str]:
    """Ids of the trials that can still be chosen, confirmed, exported or compared with, given the scores so far."""
    metric = config.training.metric
    ranked = comparable(_with_checkpoint(trials, metric))
    candidates = ranked[: max(config.keep, config.choice.confirmed[0])]
    # Score and speed of a running trial still change, and it keeps its checkpoint anyway.
    ended = [trial for trial in ranked if not trial.unfinished]
    if ended and config.choice.rule != "best":
        near = within(ended, metric, config.choice.margin)
        # When the best score rises, the worst of these leave the margin, and the next smallest or fastest can win. By
        # both sizes: the other one counts once a trial has another base model.
        candidates += [trial for cost in (_added, _whole, _pace) for trial in _front(near, cost)]
    # What the search adds is told against the known-good start, however it scores.
    starts = start_ids(trials)
    candidates += [trial for trial in ranked if trial.id in starts]
    return list(dict.fromkeys(trial.id for trial in candidates))


def choices(trials: Sequence[TrialRecord], config: SweepConfig) -> dict[str, str]:
    """Rule in words → the trial that wins by it, by the evaluations of the search."""
    winners: dict[str, str] = {}
    for metric in dict.fromkeys((*ALWAYS, config.training.metric, config.objective)):
        by_metric = (trial.model_copy(update={"score": best_by(trial, metric)}) for trial in trials)
        if ranked := rank_trials(by_metric, metric):
            winners[metric_words(metric)] = ranked[0].id
    if ranked := rank_trials(trials, config.training.metric):
        near = within(ranked, config.training.metric, config.choice.margin)
        margin = margin_text(config)
        winners[f"smallest within {margin}"] = _smallest(near, trials).id
        winners[f"fastest within {margin}"] = _fastest(near).id
    return winners


def rule_text(config: SweepConfig, confirmed: bool, *, bases: bool = False) -> str:
    """How the winner is chosen, in words.

    Args:
        bases: whether the trials have several base models.
    """
    smallest = "smallest model" if bases else "smallest adapter"
    metric = metric_words(config.training.metric)
    seeds = config.choice.confirmed[1]
    score = f"mean {metric} over {seeds} other seeds" if confirmed else f"validation {metric}"
    if config.choice.rule == "best":
        return f"best {score}"
    kind = {"smallest": smallest, "fastest": "fastest training"}[config.choice.rule]
    return f"{kind} within {margin_text(config)} of the best {score}"


def margin_text(config: SweepConfig) -> str:
    """The margin with its unit."""
    margin = config.choice.margin
    unit = unit_of(config.training.metric)
    return f"{margin:g} points" if unit == "share" else f"{margin / 100:g}{' nats' * (unit == 'nats')}"


def _with_checkpoint(trials: Sequence[TrialRecord], metric: Metric) -> list[TrialRecord]:
    return rank_trials((trial for trial in trials if trial.checkpoint), metric)


def best_by(trial: TrialRecord, metric: Metric) -> float | None:
    """A trial's best evaluation by any metric."""
    scores = [score for entry in trial.evaluations if (score := entry.by(metric)) is not None]
    return (max if higher_is_better(metric) else min)(scores, default=None)


def _front(near: Sequence[TrialRecord], cost: Callable[[TrialRecord], float]) -> list[TrialRecord]:
    """Of trials from the best on, those that cost less than every better one."""
    front: list[TrialRecord] = []
    for trial in near:
        if not front or cost(trial) < cost(front[-1]):
            front.append(trial)
    return front


def _smallest(near: Sequence[TrialRecord], trials: Sequence[TrialRecord]) -> TrialRecord:
    # Adapters of one base model are told apart by what they add to it, those of several with it. All trials tell which,
    # as those near the best that have lost their checkpoint are missing here. `near` is sorted: of equal sizes the
    # better score wins.
    several = len({trial.hyperparameters.base_model for trial in trials}) > 1
    return min(near, key=_whole if several else _added)


def _fastest(near: Sequence[TrialRecord]) -> TrialRecord:
    return min(near, key=_pace)


def _added(trial: TrialRecord) -> int:
    return trial.trainable_parameters or 0


def _whole(trial: TrialRecord) -> int:
    return trial.parameters or _added(trial)


def _pace(trial: TrialRecord) -> float:
    # Time per rung: a trial that was stopped early is not faster for that.
    return trial.seconds / max(1, len(trial.evaluations))
