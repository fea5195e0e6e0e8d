"""The descriptions that MLflow shows on top of a run's page, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.folder import SweepFolder, SweepResult, TestScores, TrialRecord
from lorasweep.tuning.record.words import METRIC_NAMES, counts_text, escape, score_text, setting_text
from lorasweep.tuning.search.stopping import stopping_rule

# A regular expression as target modules, or a traceback as an error, may be pages long.
LONGEST = 500


def sweep_note(
    folder: SweepFolder,
    result: SweepResult,
    trials: Sequence[TrialRecord],
    searched: Sequence[str],
    trials_page: str,
    winner_page: str | None,
) -> str:
    """What came of a sweep: the winner, what it is compared with, how the trials ended, what to do next.

    Args:
        searched: the settings that the sweep has varied.
        trials_page, winner_page: links within MLflow.
    """
    metric = result.metric
    parts = [
        f"[{len(trials)} trials]({trials_page}): {ends_text(trials, stopping_rule(folder.config().search).label)}."
    ]
    if result.winner is not None:
        name = f"[{result.winner.id}]({winner_page})" if winner_page else result.winner.id
        settings = ", ".join(
            f"{escape(key)} {_short(setting_text(getattr(result.winner.hyperparameters, key)))}"
            for key in searched
        )
        rule = f", chosen by {_short(result.winner.rule)}" if result.winner.rule else ""
        # MLflow shows the first few lines and folds the rest.
        parts.insert(
            0,
            f"**Winner: {name}**, {_against(result)}. Validation {METRIC_NAMES[metric]} "
            f"{score_text(result.winner.score, metric)}{rule}: {settings}",
        )
        parts.insert(1, _scores(result))
        commands = [
            f"lorasweep export {folder.name} --out best-adapter",
            f"lorasweep report {folder.name} --interactive",
        ]
    else:
        commands = [f"lorasweep resume {folder.name}"]
    if result.error:
        parts.append(f"**{escape(result.state)}**: {_short(result.error)}")
    parts += [f"{trial.id} failed: {_short(trial.error)}" for trial in trials if trial.error][:3]
    parts.append("\n".join(f"    {command}" for command in commands))
    return "\n\n".join(parts)


def ends_text(trials: Sequence[TrialRecord], stopping: str) -> str:
    """How the trials of a sweep that runs no more have ended."""
    return counts_text(trials, stopping).replace(" running", " interrupted")


def trial_note(trial: TrialRecord) -> str | None:
    """Why a trial failed, and what happened to it on the way; None where there is nothing to tell."""
    parts = [f"**Failed**: {_short(trial.error)}"] if trial.error else []
    parts += [_short(note) for note in trial.notes]
    return "\n\n".join(parts) or None


def trial_name(trial: TrialRecord, rungs: int, *, interrupted: bool = False) -> str:
    """A trial and how it ended, which MLflow's status does not tell: all that end well are FINISHED.

    Args:
        rungs: evaluations of a full trial.
        interrupted: the sweep has ended and took the trial with it.
    """
    if trial.state == "completed":
        return f"{trial.id} completed"
    if trial.state in ("stopped", "failed"):
        return f"{trial.id} {trial.state} at {trial.reached}/{rungs}"
    return f"{trial.id} interrupted at {trial.reached}/{rungs}" if interrupted else trial.id


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
