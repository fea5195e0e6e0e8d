"""What a person reads during and after a sweep: lines and tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from search_spaces.domains import show
from training.evaluate import higher_is_better
from training.settings import Metric
from tuning.record import SweepFolder, SweepResult, TestScores, TrialRecord, rank_trials

METRIC_NAMES: dict[Metric, str] = {"accuracy": "accuracy", "macro_f1": "macro-F1", "loss": "loss"}
# More columns than these would each be cut to a letter or two in 80 columns.
MOST_COLUMNS = 5
SHORT_NAMES = {
    "target_modules": "targets",
    "learning_rate": "rate",
    "batch_size": "batch",
    "weight_decay": "decay",
}


def trials_table(
    trials: Sequence[TrialRecord], metric: Metric, searched: Sequence[str], rungs: int, most: int = 5
) -> Table:
    """The best trials: settings, trainable parameters, rungs reached, time."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("trial", no_wrap=True)
    table.add_column(METRIC_NAMES[metric], justify="right", no_wrap=True)
    columns = searched if len(searched) <= MOST_COLUMNS else ()
    if not columns:
        table.add_column("settings", overflow="fold")
    for name in columns:
        numbers = all(isinstance(trial.settings.get(name), int | float) for trial in trials)
        table.add_column(
            SHORT_NAMES.get(name, name), justify="right" if numbers else "left", overflow="ellipsis"
        )
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("rungs", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for trial in rank_trials(list(trials), higher_is_better(metric))[:most]:
        settings = [setting_text(trial.settings.get(name)) for name in columns]
        table.add_row(
            trial.id,
            score_text(trial.score, metric),
            *map(escape, settings or [settings_line(trial.settings, searched)]),
            parameters_text(trial.trainable_parameters),
            f"{trial.reached}/{rungs}",
            duration(trial.seconds),
        )
    return table


def setting_text(value: Any) -> str:
    """A setting as a person writes it: 0.00216 as 2.2e-3."""
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return show(value)


def settings_line(settings: Mapping[str, Any], searched: Sequence[str]) -> str:
    """The searched settings of a trial on one line."""
    return ", ".join(f"{SHORT_NAMES.get(name, name)} {setting_text(settings.get(name))}" for name in searched)


def score_text(score: float | None, metric: Metric) -> str:
    """Accuracy and F1 in per cent, loss in nats."""
    if score is None:
        return "-"
    return f"{score:.4f}" if metric == "loss" else f"{score:.1%}"


def parameters_text(count: int | None) -> str:
    """A count of parameters: 344.1 K, 1.3 M."""
    if count is None:
        return "-"
    if count >= 999_950:
        return f"{count / 1e6:.1f} M"
    return f"{count / 1e3:.1f} K"


def duration(seconds: float) -> str:
    """Seconds as 0:42, 3:05 or 2:03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counts_text(trials: Sequence[TrialRecord]) -> str:
    """How many trials ended in which way."""
    words = {"completed": "completed", "stopped": "stopped by ASHA", "failed": "failed", "running": "running"}
    counts = {state: sum(trial.state == state for trial in trials) for state in words}
    return ", ".join(f"{count} {words[state]}" for state, count in counts.items() if count) or "no trials yet"


def result_text(
    folder: SweepFolder,
    result: SweepResult,
    trials: Sequence[TrialRecord],
    searched: Sequence[str],
    rungs: int,
) -> RenderableType:
    """A sweep's end: the best trials, the winner on the test split, and beside it the untuned settings."""
    parts: list[RenderableType] = [
        f"[bold]{escape(folder.name)}[/bold] {result.state} after {duration(result.seconds)}: "
        + counts_text(trials),
        "",
        trials_table(trials, result.metric, searched, rungs),
    ]
    failed = [trial for trial in trials if trial.error]
    for trial in failed[:3]:
        parts.append(f"{trial.id} failed: {escape(trial.error or '')}")
    if result.confirmed:
        parts += ["", _confirmed_table(result)]
    if result.winner:
        parts += ["", _test_table(result), *_winner_lines(result, searched)]
    return Group(*parts)


def _confirmed_table(result: SweepResult) -> Table:
    """The best trials on other seeds: mean and spread, and what the search had seen."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("on other seeds", no_wrap=True)
    for column in ("mean", "spread", "each"):
        table.add_column(column, justify="right")
    for entry in result.confirmed:
        spread = f"{entry.spread:.4f}" if result.metric == "loss" else f"{100 * entry.spread:.1f} pts"
        each = " ".join(score_text(score, result.metric) for score in entry.scores.values())
        table.add_row(entry.id, score_text(entry.mean, result.metric), spread, each)
    return table


def _test_table(result: SweepResult) -> Table:
    """The winner on the test split, with its interval, above what it is compared with."""
    assert result.winner is not None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("test split", no_wrap=True)
    for column in ("accuracy", "95 % interval", "macro-F1", "loss"):
        table.add_column(column, justify="right", no_wrap=True)

    def row(name: str, test: TestScores, interval: str = "") -> None:
        table.add_row(name, f"{test.accuracy:.1%}", interval, f"{test.macro_f1:.1%}", f"{test.loss:.3f}")

    low, high = result.winner.interval.get("accuracy", (None, None))
    row(f"winner {result.winner.id}", result.winner.test, f"{low:.1%} to {high:.1%}" if low else "")
    for name, test in unmerged_rows(result):
        row(name, test)
    if result.untuned:
        row("untuned default", result.untuned.test)
    for name, test in result.baselines.items():
        row(name, test)
    return table


def unmerged_rows(result: SweepResult) -> list[tuple[str, TestScores]]:
    """The winner's settings trained on the labels before they were merged: two rows below the winner."""
    if result.unmerged is None:
        return []
    return [
        (f"trained on {result.unmerged.classes} classes", result.unmerged.test),
        ("  and merged afterwards", result.unmerged.merged),
    ]


def _winner_lines(result: SweepResult, searched: Sequence[str]) -> list[RenderableType]:
    """Why it won, who would have won otherwise, and what tuning added."""
    assert result.winner is not None
    rows = [("chosen by", result.winner.rule)] if result.winner.rule else []
    if others := {rule: trial for rule, trial in result.choices.items() if trial != result.winner.id}:
        rows.append(("otherwise", ", ".join(f"{trial} by {rule}" for rule, trial in others.items())))
    elif result.choices:
        rows.append(("otherwise", "the same trial by every rule"))
    if result.untuned:
        gain = 100 * (result.winner.test.accuracy - result.untuned.test.accuracy)
        rows.append(
            ("tuning adds", f"{gain:+.1f} points to {settings_line(result.untuned.settings, searched)}")
        )
    if result.unmerged:
        gain = 100 * (result.winner.test.accuracy - result.unmerged.merged.accuracy)
        rows.append(("merging first", f"{gain:+.1f} points over merging the answers afterwards"))
    linear = max((test.accuracy for test in result.baselines.values()), default=0.0)
    if linear > result.winner.test.accuracy:
        rows.append(
            ("but", "a model without a neural network does better: this adapter is not worth its cost")
        )
    if result.registered:
        version = result.registered
        rows.append((version.alias, f"models:/{version.name}/{version.version} ({version.reason})"))
    for earlier in result.also_tested:
        score = f"{earlier.id}, the winner of fewer trials: {earlier.test.accuracy:.1%}"
        rows.append(("also tested", score))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, escape(text))
    return ["", table] if rows else []


def next_steps(console: Console, steps: Sequence[tuple[str, str]]) -> None:
    """The next commands, each with what it does."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="cyan", overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for number, (command, what) in enumerate(steps):
        table.add_row("next" if number == 0 else "", escape(command), escape(what))
    console.print()
    console.print(table)


def sweeps_table(sweeps: Sequence[SweepFolder]) -> Table:
    """All sweeps: state, trials, best validation score, test accuracy."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("sweep", "state", "trials", "best", "test accuracy"):
        table.add_column(column, justify="left" if column in ("sweep", "state") else "right", overflow="fold")
    for sweep in sweeps:
        config, trials, result = sweep.config(), sweep.trials(), sweep.result()
        metric = config.training.metric
        best = rank_trials(trials, higher_is_better(metric))[:1]
        ended = sum(trial.state != "running" for trial in trials)
        table.add_row(
            escape(sweep.name),
            sweep.state(),
            f"{ended}/{config.search.trials}",
            score_text(best[0].score if best else None, metric),
            f"{result.winner.test.accuracy:.1%}" if result and result.winner else "-",
        )
    return table


def status_entries(folder: SweepFolder) -> dict[str, Any]:
    """One sweep for `status --json`: stable names that other programs may rely on."""
    result = folder.result()
    winner = result.winner if result else None
    return {
        "name": folder.name,
        "state": folder.state(),
        "metric": folder.config().training.metric,
        "trials": [
            {
                "id": trial.id,
                "state": trial.state,
                "score": trial.score,
                "settings": trial.settings,
                "trainable_parameters": trial.trainable_parameters,
                "seconds": trial.seconds,
            }
            | ({"error": trial.error} if trial.error else {})
            for trial in folder.trials()
        ],
        "winner": winner.model_dump() if winner else None,
        "unmerged": result.unmerged.model_dump() if result and result.unmerged else None,
        "untuned": result.untuned.model_dump() if result and result.untuned else None,
        "baselines": {name: test.model_dump() for name, test in result.baselines.items()} if result else {},
        "confirmed": [entry.model_dump() for entry in result.confirmed] if result else [],
        "choices": result.choices if result else {},
        "registered": result.registered.model_dump() if result and result.registered else None,
    }
