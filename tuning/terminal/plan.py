"""The plan of a sweep as text: what it will do and what it may cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from lorasweep.training.data.summary import (
    Summary,
    describe,
    lost_lines,
    merged_lines,
    summary_lines,
    token_line,
)
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.words import METRIC_NAMES, SHORT_NAMES, counts_text, judged_text, score_text
from lorasweep.tuning.search.stopping import format_epochs, stopping_rule
from lorasweep.tuning.search.study import SAMPLERS
from lorasweep.tuning.sweep.choice import rule_text
from lorasweep.tuning.sweep.plan import SweepPlan
from lorasweep.tuning.sweep.warm_start import WarmStart

Row = tuple[str, str]


def plan_text(
    plan: SweepPlan,
    done: SweepRecord | None = None,
    warm: WarmStart | None = None,
    *,
    whole: bool = False,
) -> Table:
    """A table of what the sweep will do, shown before the first trial: seven lines of 80 columns, unless it is odd.

    Args:
        done: the sweep so far, if it is extended.
        warm: trials of another sweep to learn from.
        whole: with all that is known of data, base model and space.
    """
    table = _two_columns("bold")
    summary = describe(plan.dataset)
    about = _whole(plan, summary) if whole else _short(plan, summary)
    for name, text in (*about, *_search(plan, done, warm)):
        table.add_row(name, escape(text))
    return table


def notes_table(notes: Sequence[str]) -> Table:
    """What the user should know before the sweep starts, a sentence each; shown whatever else is."""
    table = _two_columns("yellow")
    for note in notes:
        table.add_row("note", escape(note))
    return table


def _two_columns(style: str) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(style=style, no_wrap=True, min_width=len("columns"))
    table.add_column(overflow="fold")
    return table


def _short(plan: SweepPlan, summary: Summary) -> Iterator[Row]:
    """Data, base model and space, and whatever of the data is lost."""
    rows = ", ".join(f"{split} {count:,}" for split, count in summary.rows.items())
    yield "data", f"{summary.source}: {rows} rows" + (", split by date" if summary.dates else "")
    yield "columns", f"{_columns(plan)}: {summary.classes} classes"
    yield from (("", line) for line in [*merged_lines(summary)[:1], *lost_lines(summary)])
    if truncated := plan.encoded.token_summary()["truncated"]:
        yield "", f"{truncated:,} rows truncated at {plan.config.training.max_length} tokens"
    yield "model", _model(plan)
    names = ", ".join(SHORT_NAMES.get(name, name) for name in plan.space.searched)
    yield "space", f"{plan.space.name}: {names}"


def _whole(plan: SweepPlan, summary: Summary) -> Iterator[Row]:
    """Everything that is known of data, base model and space."""
    lines = summary_lines(summary)
    lines.append(token_line(plan.encoded.token_summary(), plan.config.training.max_length))
    yield "data", "\n".join(lines)
    yield "columns", _columns(plan)
    yield "model", _model(plan)
    for choice, names in plan.target_modules.items():
        yield "adapts", f"{choice}: {len(names)} modules, {kinds_of(names)}"
    yield "space", "\n".join([plan.space.name, *(f"{name}: {text}" for name, text in plan.space.describe())])


def _columns(plan: SweepPlan) -> str:
    return f"text {' + '.join(plan.dataset.text_columns)}, label {plan.dataset.label_column}"


def _model(plan: SweepPlan) -> str:
    name = plan.config.base_model
    if plan.base.hub_id is None and Path(name).is_relative_to(Path.cwd()):
        # The whole path is kept; a person knows where they are.
        name = str(Path(name).relative_to(Path.cwd()))
    return f"{name} ({plan.base.model_type}), {plan.amp.name} on {plan.hardware.names}"


def _search(plan: SweepPlan, done: SweepRecord | None, warm: WarmStart | None) -> Iterator[Row]:
    """Trials, those there are already, how they are stopped and chosen, and the cost."""
    config, resources, budget = plan.config, plan.resources, plan.budget
    metric, (count, _) = config.training.metric, config.choice.confirmed
    where = (
        f"{resources.gpus_per_trial:g} GPU"
        if resources.gpus_per_trial
        else _count(resources.cpus_per_trial, "core")
    )
    trials = f"{budget.trials} by {SAMPLERS[config.search.sampler].label} for the best"
    if judged := judged_text(metric, config.objective):
        # Both fit one line if it is brief.
        aim = f"{METRIC_NAMES[metric]}, {judged}; {resources.concurrency} at once, {where} each"
    else:
        aim = f"validation {METRIC_NAMES[metric]}, {resources.concurrency} at once with {where} each"
    yield "trials", f"{trials} {aim}"
    if plan.share_reason:
        yield "", plan.share_reason
    rule = stopping_rule(config.search)
    if done is not None:
        ranked = done.ranked()
        best = f"; best {score_text(ranked[0].score, metric)}, {ranked[0].id}" if ranked else ""
        yield "done", f"{len(done.trials)} of them: {counts_text(done.trials, rule.label)}{best}"
    if warm:
        older = f"{_count(len(warm.trials), 'trial')} of {config.search.warm_start}"
        yield (
            "learns",
            f"from {older}; begins with its best, {warm.best.id} ({score_text(warm.best.score, metric)})",
        )
    stopping = rule.text(config.search, budget.halving)
    yield "rungs", f"{budget.rungs} evaluations per full trial; {stopping}"
    if count or config.choice.rule != "best":
        confirming = f", of the best {count} trials" if count else ""
        yield "winner", f"{rule_text(config, bool(count))}{confirming}"
    yield "cost", _cost(plan, done)


def _cost(plan: SweepPlan, done: SweepRecord | None) -> str:
    """Epochs of training that are still to come."""
    config, budget = plan.config, plan.budget
    epochs, past = config.training.epochs, done.trials if done else []
    rungs = (budget.trials - len(past)) * budget.rungs
    rungs += sum(budget.rungs - trial.reached for trial in past if trial.unfinished)
    at_most = rungs * epochs / budget.rungs
    more = " more" if done else ""
    text = f"at most {format_epochs(at_most)}{more} epochs of {len(plan.dataset.train):,} rows"
    if budget.halving:
        expected = at_most * budget.epochs_expected / budget.epochs_at_most
        text += f"; about {format_epochs(expected)} with {stopping_rule(config.search).label}"
    count, seeds = config.choice.confirmed
    if count:
        text += f"; {count * seeds * epochs} to confirm"
    untuned = config.compare_untuned and not (done and done.result and done.result.untuned)
    if compared := epochs * (untuned + bool(plan.dataset.original_names)):
        text += f"; {compared} to compare"
    return text


def kinds_of(names: Sequence[str]) -> str:
    """Module names without layer numbers, each once, such as `attention.self.query`."""
    kinds = dict.fromkeys(_last_parts(name) for name in names)
    return ", ".join(kinds)


def _last_parts(name: str) -> str:
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else name


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" + ("" if number == 1 else "s")
