"""Which trial wins: by its score, or by its size or speed among those that score nearly as well."""

from __future__ import annotations

from collections.abc import Sequence

from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import Confirmed, TrialRecord, rank_trials

METRICS: tuple[Metric, ...] = ("accuracy", "macro_f1", "loss")


def choose(
    trials: Sequence[TrialRecord], config: SweepConfig, confirmed: Sequence[Confirmed] = ()
) -> TrialRecord | None:
    """The winner among trials that have a checkpoint; where some were confirmed, among those by their mean."""
    ranked = rank_trials(
        [trial for trial in trials if trial.checkpoint], higher_is_better(config.training.metric)
    )
    if confirmed:
        means = {entry.id: entry.mean for entry in confirmed}
        known = [trial.model_copy(update={"score": means[trial.id]}) for trial in ranked if trial.id in means]
        ranked = rank_trials(known, higher_is_better(config.training.metric))
    if not ranked:
        return None
    near = within(ranked, config.training.metric, config.choice.margin)
    chosen = {"best": ranked[0], "smallest": _smallest(near), "fastest": _fastest(near)}[config.choice.rule]
    # As it is recorded, not with the mean in the score's place.
    return next(trial for trial in trials if trial.id == chosen.id)


def within(ranked: Sequence[TrialRecord], metric: Metric, margin: float) -> list[TrialRecord]:
    """The best trial and those whose score is at most `margin` points (hundredths) worse."""
    best = ranked[0].score or 0.0
    # A hair more than the margin: 0.905 - 0.9 is not quite 0.005 in binary.
    return [trial for trial in ranked if abs((trial.score or 0.0) - best) <= margin / 100 + 1e-9]


def contenders(trials: Sequence[TrialRecord], config: SweepConfig) -> list[str]:
    """Ids of the trials that can still be chosen, confirmed or kept, judged by what is known so far."""
    metric = config.training.metric
    ranked = rank_trials([trial for trial in trials if trial.checkpoint], higher_is_better(metric))
    count = max(config.keep, config.choice.confirmed[0])
    found = ranked[:count]
    if ranked and config.choice.rule != "best":
        near = within(ranked, metric, config.choice.margin)
        # One is enough of those near the best: a later trial can only take its place.
        found = [*found, _smallest(near), _fastest(near)]
    return list(dict.fromkeys(trial.id for trial in found))


def choices(trials: Sequence[TrialRecord], config: SweepConfig) -> dict[str, str]:
    """Rule in words → the trial that would have won by it, by the search's own evaluations."""
    found: dict[str, str] = {}
    for metric in METRICS:
        by_metric = [trial.model_copy(update={"score": _best(trial, metric)}) for trial in trials]
        ranked = rank_trials(by_metric, higher_is_better(metric))
        if ranked:
            found[metric.replace("macro_f1", "macro-F1")] = ranked[0].id
    ranked = rank_trials(list(trials), higher_is_better(config.training.metric))
    if ranked:
        near = within(ranked, config.training.metric, config.choice.margin)
        margin = margin_text(config)
        found[f"smallest within {margin}"] = _smallest(near).id
        found[f"fastest within {margin}"] = _fastest(near).id
    return found


def rule_text(config: SweepConfig, confirmed: bool) -> str:
    """How the winner is chosen, in words."""
    metric = config.training.metric.replace("macro_f1", "macro-F1")
    seeds = config.choice.confirmed[1]
    score = f"mean {metric} over {seeds} other seeds" if confirmed else f"validation {metric}"
    if config.choice.rule == "best":
        return f"best {score}"
    kind = {"smallest": "smallest adapter", "fastest": "fastest training"}[config.choice.rule]
    return f"{kind} within {margin_text(config)} of the best {score}"


def margin_text(config: SweepConfig) -> str:
    """The margin with its unit."""
    margin = config.choice.margin
    return f"{margin / 100:g} nats" if config.training.metric == "loss" else f"{margin:g} points"


def _best(trial: TrialRecord, metric: Metric) -> float | None:
    values = [evaluation.by(metric) for evaluation in trial.evaluations]
    known = [value for value in values if value is not None]
    if not known:
        return None
    return max(known) if higher_is_better(metric) else min(known)


def _smallest(near: Sequence[TrialRecord]) -> TrialRecord:
    # The order of `near` decides between equals: the better score.
    return min(near, key=lambda trial: trial.trainable_parameters or 0)


def _fastest(near: Sequence[TrialRecord]) -> TrialRecord:
    # By rung: a trial that was stopped early has not trained faster for that.
    return min(near, key=lambda trial: trial.seconds / max(1, len(trial.evaluations)))
