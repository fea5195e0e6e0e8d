"""A sweep's result as text: tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lorasweep.training.metrics import ALWAYS, Metric, metric_words
from lorasweep.tuning.record.bases import BaseSummary, base_summaries
from lorasweep.tuning.record.finalists import finalists
from lorasweep.tuning.record.gains import gain_texts
from lorasweep.tuning.record.results import StartReference, SweepResult, TestScores, Winner
from lorasweep.tuning.record.starts import start_ids
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials
from lorasweep.tuning.record.words import (
    SHORT_NAMES,
    amount_text,
    counts_text,
    duration,
    judged_text,
    parameters_text,
    part_text,
    score_text,
    scores_text,
    setting_text,
    settings_line,
    shown_metrics,
    threshold_text,
    unmerged_rows,
)
from lorasweep.tuning.search.stopping import stopping_rule

# With more, 80 columns would leave a letter or two for each.
MOST_COLUMNS = 5
# Trials with a score, and trials that failed, that are shown unless all are asked for.
MOST_TRIALS, MOST_FAILED = 5, 3
# Behind a trial's id, and what they say below the table.
START_MARK, NEAR_MARK = "*", "~"
MARKS = {START_MARK: "* the known-good start", NEAR_MARK: "~ within noise of the winner"}


def trials_table(
    trials: Sequence[TrialRecord],
    metric: Metric,
    searched: Sequence[str],
    rungs: int,
    most: int = 5,
    *,
    running: int | None = None,
    near: Collection[str] = (),
) -> Table:
    """The best trials: hyperparameters, trainable parameters, rungs reached, time.

    Args:
        rungs: evaluations of a full trial.
        running: while the sweep runs, how many running trials to show besides the best: a line a trial, with its
            state in place of parameters and time.
        near: ids of trials within noise of the winner, which get a mark, as the known-good start does.
    """
    live = running is not None
    shown = rank_trials(trials, metric)[:most]
    best = {trial.id for trial in shown}
    shown += [trial for trial in trials if trial.state == "running" and trial.id not in best][: running or 0]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("trial", no_wrap=True)
    table.add_column(metric_words(metric), justify="right", no_wrap=True)
    columns = searched if len(searched) <= MOST_COLUMNS else ()
    if not columns:
        table.add_column("settings", overflow="ellipsis" if live else "fold")
    for name in columns:
        numbers = all(isinstance(getattr(trial.hyperparameters, name), int | float) for trial in trials)
        table.add_column(
            SHORT_NAMES.get(name, name), justify="right" if numbers else "left", overflow="ellipsis"
        )
    if not live:
        table.add_column("params", justify="right", no_wrap=True)
    table.add_column("rungs", justify="right", no_wrap=True)
    table.add_column("" if live else "time", justify="left" if live else "right", no_wrap=True)
    starts, marks = start_ids(trials), ""
    for trial in shown:
        mark = START_MARK * (trial.id in starts) + NEAR_MARK * (trial.id in near)
        marks += mark
        settings = [setting_text(getattr(trial.hyperparameters, name)) for name in columns]
        table.add_row(
            trial.id + mark,
            score_text(trial.score, metric),
            # Not the column's own `no_wrap`: these columns are the ones that give way to narrow terminals.
            *(
                Text(text, no_wrap=live)
                for text in settings or [settings_line(trial.hyperparameters, searched)]
            ),
            *([] if live else [parameters_text(trial.trainable_parameters)]),
            f"{trial.reached}/{rungs}",
            trial.state if live else duration(trial.seconds),
        )
    if legend := [text for mark, text in MARKS.items() if mark in marks]:
        table.caption, table.caption_justify = ", ".join(legend), "left"
    return table


def result_text(
    sweep: SweepRecord, result: SweepResult | None = None, *, all_trials: bool = False
) -> RenderableType:
    """The best trials, the winner on the test split, and what it is compared with.

    Args:
        result: the sweep's, if it could not be written; as recorded if None.
        all_trials: show every trial; otherwise it is said how many are not shown.
    """
    result = result or sweep.outcome()
    stopping = stopping_rule(sweep.config.search).label
    parts: list[RenderableType] = [
        f"[bold]{escape(sweep.name)}[/bold] {result.state} after {duration(result.seconds)}: "
        + counts_text(sweep.trials, stopping),
        "",
        trials_table(
            sweep.trials,
            result.metric,
            sweep.searched,
            sweep.config.training.rungs,
            most=len(sweep.trials) if all_trials else MOST_TRIALS,
            near=result.near,
        ),
        *_trials_beside(sweep, all_trials),
    ]
    if bases := base_summaries(sweep):
        parts += ["", bases_table(bases, result.metric)]
    if result.confirmed:
        parts += ["", _confirmed_table(result)]
    parts += [f"{escape(step)} failed: {escape(why)}" for step, why in result.missing.items()]
    if result.winner:
        parts += ["", _test_table(result), *_winner_lines(result, sweep)]
    return Group(*parts)


def _trials_beside(sweep: SweepRecord, all_trials: bool) -> list[RenderableType]:
    """The trials that the table of the best ones lacks: those without a score, and how many others there are."""
    ranked, failed = sweep.ranked(), [trial for trial in sweep.trials if trial.error]
    lines = []
    if finalists(sweep.trials):
        part = part_text(sweep.plan) or "a part of the rows"
        lines.append(f"-full: trained and judged on all rows; the others on {part}")
    failures = [f"{trial.id} failed: {escape(trial.error or '')}" for trial in failed]
    if all_trials:
        scored = {trial.id for trial in (*ranked, *failed)}
        without = [f"{trial.id} {trial.state}" for trial in sweep.trials if trial.id not in scored]
        return [*lines, *failures, *without]
    lines += failures[:MOST_FAILED]
    shown = {trial.id for trial in (*ranked[:MOST_TRIALS], *failed[:MOST_FAILED])}
    if hidden := len(sweep.trials) - len(shown):
        command = sweep.folder.command("status", "--all")
        lines.append(f"and {hidden} more; all of them: {escape(command)}")
    return [*lines]


def bases_table(bases: Sequence[BaseSummary], metric: Metric) -> Table:
    """The base models that trials chose among: the best trial of each, its size, its speed in training, and latency."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("base", overflow="fold")
    table.add_column("best", no_wrap=True)
    for column in (metric_words(metric), "params", "adapter", "whole", "rows/s", "ms/text"):
        table.add_column(column, justify="right", no_wrap=True)

    def number(value: float | None, unit: str = "") -> str:
        return "-" if value is None else f"{value:,.{1 if unit and value < 100 else 0}f}{unit}"

    for base in bases:
        table.add_row(
            escape(base.label),
            f"{base.best or '-'} of {base.trials}",
            score_text(base.score, metric),
            parameters_text(base.parameters),
            number(base.adapter_mb, " MB"),
            number(base.merged_mb, " MB"),
            number(base.samples_per_second),
            "-" if base.latency_ms is None else f"{base.latency_ms:.3g}",
        )
    return table


def _confirmed_table(result: SweepResult) -> Table:
    """The best trials on other seeds: mean, spread and each score."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("on other seeds", no_wrap=True)
    for column in ("mean", "spread", "each"):
        table.add_column(column, justify="right")
    for entry in result.confirmed:
        spread = amount_text(entry.spread, result.metric).replace("points", "pts")
        each = " ".join(score_text(score, result.metric) for score in entry.scores.values())
        table.add_row(entry.id, score_text(entry.mean, result.metric), spread, each)
    return table


def _test_table(result: SweepResult) -> Table:
    """The winner's test scores with their interval, above those of what it is compared with."""
    assert result.winner is not None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("test split", no_wrap=True)
    # The sweep's own metric stands first, where it is none of those that are always there.
    first, second = ("accuracy", "macro_f1") if result.metric in ALWAYS else (result.metric, "accuracy")
    for column in (metric_words(first), "95 % interval", metric_words(second), "loss"):
        table.add_column(escape(column), justify="right", no_wrap=True, max_width=18, overflow="ellipsis")

    def row(name: str, test: TestScores, interval: str = "") -> None:
        cells = score_text(test.by(first), first), interval, score_text(test.by(second), second)
        table.add_row(name, *cells, f"{test.loss:.3f}")

    def interval(tested: Winner | StartReference) -> str:
        return " to ".join(score_text(end, first) for end in tested.interval.get(first, ()))

    row(f"winner {result.winner.id}", result.winner.test, interval(result.winner))
    if result.start:
        row(f"known-good start {result.start.id}", result.start.test, interval(result.start))
    for name, test in unmerged_rows(result):
        row(name, test)
    if result.untuned:
        row("untuned default", result.untuned.test)
    for name, test in result.baselines.items():
        row(name, test)
    return table


def _winner_lines(result: SweepResult, sweep: SweepRecord) -> list[RenderableType]:
    """What the search added, why it won, and which trials other rules choose."""
    assert result.winner is not None
    searched, judged = sweep.searched, judged_text(result.metric, sweep.objective)
    rule = result.winner.rule + (f"; trials were {judged}" if judged else "")
    rows = [("chosen by", rule)] if result.winner.rule else []
    if others := {rule: trial for rule, trial in result.choices.items() if trial != result.winner.id}:
        rows.append(("otherwise", ", ".join(f"{trial} by {rule}" for rule, trial in others.items())))
    elif result.choices:
        rows.append(("otherwise", "the same trial by every rule"))
    winner = result.winner
    if shown := shown_metrics(winner.test.more, result.metric):
        rows.append(("test split", scores_text(winner.test, winner.interval, shown)))
    if winner.thresholds:
        rows.append(("threshold", threshold_text(winner.thresholds, result.metric)))
    if result.untuned:
        rows.append(("untuned", settings_line(result.untuned.hyperparameters, searched)))
    if result.near and not result.confirmed:
        rows.append(("within noise", f"the validation scores of {', '.join(result.near)}"))
    if result.unmerged:
        gain = 100 * (result.winner.test.accuracy - result.unmerged.merged.accuracy)
        rows.append(("merging first", f"{gain:+.1f} points over merging the predictions afterwards"))
    linear = max((test.accuracy for test in result.baselines.values()), default=0.0)
    if linear > result.winner.test.accuracy:
        rows.append(
            ("but", "a model without a neural network scores higher: this adapter is not worth its cost")
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
    # In a table, as the console breaks no line of a plain text.
    said = Table.grid()
    for text in (texts := gain_texts(result)):
        said.add_row(escape(text))
    parts: list[RenderableType] = ["", said] if texts else []
    return [*parts, "", table] if rows else parts
