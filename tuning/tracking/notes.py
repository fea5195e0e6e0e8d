"""The descriptions on top of a run's page in MLflow, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.results import SweepResult, TestScores, TrialRecord
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.words import METRIC_NAMES, counts_text, escape, score_text, setting_text
from lorasweep.tuning.search.stopping import stopping_rule

# Characters of one value: target modules may be a long regular expression, an error a traceback.
LONGEST = 500


def sweep_note(sweep: SweepRecord, result: SweepResult, trials_page: str, winner_page: str | None) -> str:
    """The outcome of a sweep: the winner, what it is compared with, how the trials ended, what to do next.

    Args:
        trials_page, winner_page: links within MLflow.
    """
    metric, trials, name = result.metric, sweep.trials, sweep.name
    parts = [f"[{len(trials)} trials]({trials_page}): {ends_text(sweep)}."]
    if result.winner is not None:
        winner = f"[{result.winner.id}]({winner_page})" if winner_page else result.winner.id
        settings = ", ".join(
            f"{escape(key)} {_short(setting_text(getattr(result.winner.hyperparameters, key)))}"
            for key in sweep.searched
        )
        rule = f", chosen by {_short(result.winner.rule)}" if result.winner.rule else ""
        # First, as MLflow folds all but a few lines.
        parts.insert(
            0,
            f"**Winner: {winner}**, {_against(result)}. Validation {METRIC_NAMES[metric]} "
            f"{score_text(result.winner.score, metric)}{rule}: {settings}",
        )
        parts.insert(1, _scores(result))
        commands = [f"lorasweep export {name} --out best-adapter", f"lorasweep report {name}"]
    else:
        commands = [f"lorasweep resume {name}"]
    if result.error:
        parts.append(f"**{escape(result.state)}**: {_short(result.error)}")
    parts += [f"{escape(step)} failed: {_short(why)}" for step, why in result.missing.items()]
    parts += [f"{trial.id} failed: {_short(trial.error)}" for trial in trials if trial.error][:3]
    parts.append("\n".join(f"    {command}" for command in commands))
    return "\n\n".join(parts)


def ends_text(sweep: SweepRecord) -> str:
    """How many trials ended in which way, once the sweep has ended."""
    label = stopping_rule(sweep.config.search).label
    return counts_text(sweep.trials, label)


def trial_note(trial: TrialRecord) -> str | None:
    """Why a trial failed, and its notes; None if there is neither."""
    parts = [f"**Failed**: {_short(trial.error)}"] if trial.error else []
    parts += [_short(note) for note in trial.notes]
    return "\n\n".join(parts) or None


def trial_name(trial: TrialRecord, rungs: int) -> str:
    """A trial's id and how it ended: MLflow's status is FINISHED for completed and stopped ones alike.

    Args:
        rungs: evaluations of a full trial.
    """
    if trial.state == "completed":
        return f"{trial.id} completed"
    return trial.id if trial.state == "running" else f"{trial.id} {trial.state} at {trial.reached}/{rungs}"


def _against(result: SweepResult) -> str:
    assert result.winner is not None
    metric = result.metric
    cell = _cell(result.winner.test, metric, result.winner.interval)
    text = f"test {METRIC_NAMES[metric]} **{cell}**"
    others = [f"{escape(name)} {_cell(test, metric, {})}" for name, test in _others(result)]
    return f"{text}; {', '.join(others)}" if others else text


def _others(result: SweepResult) -> list[tuple[str, TestScores]]:
    untuned = [("untuned default", result.untuned.test)] if result.untuned else []
    return [*untuned, *result.baselines.items()]


def _scores(result: SweepResult) -> str:
    assert result.winner is not None
    rows = [("winner", result.winner.test, result.winner.interval)]
    rows += [(name, test, {}) for name, test in _others(result)]
    lines = ["| test split | accuracy | macro-F1 | loss |", "|---|---|---|---|"]
    for name, test, interval in rows:
        cells = [_cell(test, key, interval) for key in METRIC_NAMES]
        lines.append(f"| {escape(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(test: TestScores, metric: Metric, interval: Mapping[str, tuple[float, float]]) -> str:
    text = score_text(getattr(test, metric), metric)
    if metric in interval:
        low, high = (score_text(bound, metric) for bound in interval[metric])
        return f"{text} ({low} to {high})"
    return text


def _short(text: str | None) -> str:
    text = text or ""
    return escape(text if len(text) <= LONGEST else text[:LONGEST] + " ...")
