"""The descriptions on top of a run's page in MLflow, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from lorasweep.training.metrics import ALWAYS, metric_words
from lorasweep.training.settings import Metric
from lorasweep.tuning.record.bases import base_name
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.gains import gain_texts
from lorasweep.tuning.record.results import SweepResult, TestScores
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import (
    counts_text,
    escape,
    judged_text,
    score_text,
    setting_text,
    shown_metrics,
    threshold_text,
)
from lorasweep.tuning.search.stopping import stopping_rule
from lorasweep.tuning.tracking.store import hide_passwords

# Characters of one value: target modules may be a long regular expression, an error a traceback.
LONGEST = 500


def sweep_note(sweep: SweepRecord, result: SweepResult, trials_page: str, winner_page: str | None) -> str:
    """The outcome of a sweep: the winner, what it is compared with, how the trials ended, what to do next.

    Args:
        trials_page, winner_page: links within MLflow.
    """
    trials, name = sweep.trials, sweep.name
    parts = [f"[{len(searched_trials(trials))} trials]({trials_page}): {ends_text(sweep)}."]
    if result.winner is not None:
        winner = f"[{result.winner.id}]({winner_page})" if winner_page else result.winner.id
        # First, as MLflow folds all but a few lines.
        parts = [
            f"**Winner: {winner}**, {_outcome(sweep, result)}",
            *_added(sweep, result),
            _scores(result),
            *parts,
        ]
        commands = [export_command(name), f"lorasweep report {name}"]
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
    return "\n\n".join(_remarks(trial)) or None


def winner_note(sweep: SweepRecord, result: SweepResult, trial: TrialRecord, sweep_page: str) -> str:
    """What the winner scored on the test split, with which hyperparameters, its notes, and how to get it.

    Args:
        trial: the winner's record.
        sweep_page: a link within MLflow.
    """
    about = f"**Winner of [{escape(sweep.name)}]({sweep_page})**, {_outcome(sweep, result)}"
    return "\n\n".join(
        [
            about,
            *_added(sweep, result),
            _scores(result),
            *_remarks(trial),
            f"    {export_command(sweep.name)}",
        ]
    )


def version_note(sweep: SweepRecord, result: SweepResult, source: str) -> str:
    """What a version of a registered model is: the winner's scores, its hyperparameters, and where it is from.

    Args:
        source: of the data.
    """
    assert result.winner is not None
    trained = f"{_short(base_name(sweep, result.winner.hyperparameters))}, trained on {_short(hide_passwords(source))}"
    about = f"Trial {result.winner.id} of sweep {escape(sweep.name)} ({trained}): {_outcome(sweep, result)}"
    return "\n\n".join([about, _scores(result), *_threshold(result)])


def trial_name(trial: TrialRecord, sweep: str, rungs: int, *, won: bool = False) -> str:
    """A trial's id, how it ended, and its sweep, as sweeps share a table and each has a t000.

    MLflow's status is FINISHED for completed and stopped trials alike.

    Args:
        rungs: evaluations of a full trial.
        won: the sweep has ended and this is its winner.
    """
    if won:
        ended = "winner"
    elif trial.state == "completed":
        early = trial.stopped_by == "early_end"
        ended = f"ended early at {trial.reached}/{rungs}" if early else "completed"
    elif trial.state == "running":
        ended = ""
    else:
        ended = f"{trial.state} at {trial.reached}/{rungs}"
    return child_name(f"{trial.id} {ended}".strip(), sweep)


def child_name(name: str, parent: str) -> str:
    """A run's name that tells it from those of the same name below other parents."""
    return f"{name} ({parent})"


def export_command(sweep: str) -> str:
    """How the winner is taken along."""
    return f"lorasweep export {sweep} --out best-adapter"


def _outcome(sweep: SweepRecord, result: SweepResult) -> str:
    assert result.winner is not None
    metric, winner = result.metric, result.winner
    settings = ", ".join(
        f"{escape(key)} {_short(setting_text(getattr(winner.hyperparameters, key)))}"
        for key in sweep.searched
    )
    rule = f", chosen by {_short(winner.rule)}" if winner.rule else ""
    judged = judged_text(metric, sweep.objective)
    rule += f"; trials were {judged}" if judged else ""
    validation = f"Validation {metric_words(metric)} {score_text(winner.score, metric)}{rule}"
    return f"{_against(result)}. {validation}{f': {settings}' if settings else ''}"


def _added(sweep: SweepRecord, result: SweepResult) -> list[str]:
    added = [_short(text) for text in gain_texts(result)]
    return [" ".join(added)] if added else []


def _remarks(trial: TrialRecord) -> list[str]:
    failed = [f"**Failed**: {_short(trial.error)}"] if trial.error else []
    return failed + [_short(note) for note in trial.notes]


def _against(result: SweepResult) -> str:
    assert result.winner is not None
    metric = result.metric
    cell = _cell(result.winner.test, metric, result.winner.interval)
    text = f"test {metric_words(metric)} **{cell}**"
    others = [f"{escape(name)} {_cell(test, metric, {})}" for name, test in _others(result)]
    return f"{text}; {', '.join(others)}" if others else text


def _others(result: SweepResult) -> list[tuple[str, TestScores]]:
    start = [(f"known-good start {result.start.id}", result.start.test)] if result.start else []
    untuned = [("untuned default", result.untuned.test)] if result.untuned else []
    return [*start, *untuned, *result.baselines.items()]


def _scores(result: SweepResult) -> str:
    assert result.winner is not None
    rows = [("winner", result.winner.test, result.winner.interval)]
    rows += [(name, test, {}) for name, test in _others(result)]
    shown = [*ALWAYS, *shown_metrics(result.winner.test.more, result.metric)]
    lines = [
        f"| test split | {' | '.join(escape(metric_words(key)) for key in shown)} |",
        "|---" * (1 + len(shown)) + "|",
    ]
    for name, test, interval in rows:
        cells = [_cell(test, key, interval) for key in shown]
        lines.append(f"| {escape(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _threshold(result: SweepResult) -> list[str]:
    """The winner's threshold, and the scores with it."""
    if result.winner is None or result.winner.thresholds is None:
        return []
    return [f"Threshold {_short(threshold_text(result.winner.thresholds, result.metric))}."]


def _cell(test: TestScores, metric: Metric, interval: Mapping[str, tuple[float, float]]) -> str:
    text = score_text(test.by(metric), metric)
    if metric in interval:
        low, high = (score_text(bound, metric) for bound in interval[metric])
        return f"{text} ({low} to {high})"
    return text


def _short(text: str | None) -> str:
    text = text or ""
    return escape(text if len(text) <= LONGEST else text[:LONGEST] + " ...")
