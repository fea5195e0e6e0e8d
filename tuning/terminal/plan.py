"""The plan of a sweep as text: what it will do and what it may cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from lorasweep.training.data.summary import (
    Summary,
    describe,
    long_line,
    lost_lines,
    merged_lines,
    summary_lines,
    token_line,
)
from lorasweep.training.metrics import metric_words
from lorasweep.training.threshold_rules import DEFAULT_RULE
from lorasweep.tuning.record.bases import base_label
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.words import (
    SHORT_NAMES,
    counts_text,
    judged_text,
    score_text,
    share_text,
    threshold_rule,
)
from lorasweep.tuning.search.stopping import format_epochs, stopping_rule
from lorasweep.tuning.search.study import SAMPLERS
from lorasweep.tuning.sweep.finalists import rate_factor
from lorasweep.tuning.sweep.plan.plan import SweepPlan
from lorasweep.tuning.sweep.warm_start import WarmStart
from lorasweep.tuning.sweep.winner.choice import rule_text

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
    kept = f", each {summary.group_column} in one split" if summary.groups else ""
    yield "data", f"{summary.source}: {rows} rows{', split by date' if summary.dates else kept}"
    yield "columns", f"{_columns(plan)}: {summary.classes} classes"
    yield from _positive(plan)
    yield from (("", line) for line in [*merged_lines(summary)[:1], *lost_lines(summary)])
    tokens, training = plan.encoded.token_summary(), plan.config.training
    if tokens["truncated"]:
        yield "", long_line(tokens, f"{training.max_length} tokens", training.long)
    yield "model", _model(plan)
    names = ", ".join(SHORT_NAMES.get(name, name) for name in plan.space.searched)
    yield "space", f"{plan.space.name}: {names}"


def _whole(plan: SweepPlan, summary: Summary) -> Iterator[Row]:
    """Everything that is known of data, base model and space."""
    lines = summary_lines(summary)
    training = plan.config.training
    lines.append(token_line(plan.encoded.token_summary(), training.max_length, training.long))
    yield "data", "\n".join(lines)
    yield "columns", _columns(plan)
    yield from _positive(plan)
    yield "model", _model(plan)
    for choice, names in plan.target_modules.items():
        yield "adapts", f"{choice}: {len(names)} modules, {kinds_of(names)}"
    yield "space", "\n".join([plan.space.name, *(f"{name}: {text}" for name, text in plan.space.describe())])


def _positive(plan: SweepPlan) -> Iterator[Row]:
    """The positive one of two classes, and how thresholds are chosen."""
    names, settings = plan.dataset.label_names, plan.config.training
    if plan.dataset.multi_label:
        yield "thresholds", threshold_rule(plan.config.choice.threshold or DEFAULT_RULE)
        return
    if len(names) == 2:
        yield "positive", f"{settings.positive or names[1]}, for AUROC, average precision and Brier score"
    if (threshold := plan.config.choice.threshold) is not None:
        yield "", f"its threshold: {threshold_rule(threshold)}"


def _columns(plan: SweepPlan) -> str:
    return f"text {' + '.join(plan.dataset.text_columns)}, label {plan.dataset.label_column}"


def _model(plan: SweepPlan) -> str:
    name = plan.config.base_model
    if plan.base.hub_id is None and Path(name).is_relative_to(Path.cwd()):
        # The whole path is kept; a person knows where they are.
        name = str(Path(name).relative_to(Path.cwd()))
    training = plan.config.training
    stored = [f"stored in {training.quantize}"] if training.quantize else []
    stored += ["layers computed twice"] if training.gradient_checkpointing else []
    how = ", ".join([f"{plan.amp.name} on {plan.hardware.names}", *stored])
    if len(plan.bases) > 1:
        each = ", ".join(f"{base_label(key)} ({base.model_type})" for key, base in plan.bases.items())
        return f"one of {each}; {how}"
    return f"{name} ({plan.base.model_type}), {how}"


def _search(plan: SweepPlan, done: SweepRecord | None, warm: WarmStart | None) -> Iterator[Row]:
    """Trials, those there are already, how they are stopped and chosen, and the cost."""
    config, resources, budget = plan.config, plan.resources, plan.budget
    metric, (count, _) = config.training.metric, config.choice.confirmed
    where = (
        f"{resources.gpus_per_trial:g} GPU"
        if resources.gpus_per_trial
        else _count(resources.cpus_per_trial, "core")
    )
    number = "" if config.search.open else f"{budget.trials} "
    trials = f"{number}{_on_part(plan)}by {SAMPLERS[config.search.sampler].label} for the best"
    if judged := judged_text(metric, config.objective):
        # Both fit one line if it is brief.
        aim = f"{metric_words(metric)}, {judged}; {resources.concurrency} at once, {where} each"
    else:
        aim = f"validation {metric_words(metric)}, {resources.concurrency} at once with {where} each"
    yield "trials", f"{trials} {aim}"
    if resources.gpus_per_trial:
        cores = f"with {_count(resources.cpus_per_trial, 'core')} each"
        yield "", "; ".join(filter(None, [cores, plan.share_reason]))
    if plan.part is not None:
        yield (
            "",
            f"then {_finalists(plan)} on all {len(plan.dataset.train):,} rows{_lower_rate(plan)}; the winner is one of "
            "them",
        )
    rule = stopping_rule(config.search)
    if done is not None:
        ranked = done.ranked()
        best = f"; best {score_text(ranked[0].score, metric)}, {ranked[0].id}" if ranked else ""
        yield (
            "done",
            f"{len(searched_trials(done.trials))} of them: {counts_text(done.trials, rule.label)}{best}",
        )
    if warm:
        older = f"{_count(len(warm.trials), 'trial')} of {config.search.warm_start}"
        yield (
            "learns",
            f"from {older}; begins with its best, {warm.best.id} ({score_text(warm.best.score, metric)})",
        )
    stopping = rule.text(config.search, budget.halving)
    if config.search.patience is not None:
        yield "", f"until {config.search.patience} in a row bring nothing beyond noise"
    yield "rungs", f"{budget.rungs} evaluations per full trial; {stopping}"
    if (early := config.training.early_end) is not None:
        yield "", f"a trial ends once its loss has not fallen for {_count(early, 'evaluation')}"
    if count or config.choice.rule != "best":
        confirming = f", of the best {count} trials" if count else ""
        yield "winner", f"{rule_text(config, bool(count), bases=len(plan.bases) > 1)}{confirming}"
    yield "cost", _cost(plan, done)


def _cost(plan: SweepPlan, done: SweepRecord | None) -> str:
    """Epochs of training that are still to come, and minutes."""
    config, budget = plan.config, plan.budget
    epochs, past = config.training.epochs, searched_trials(done.trials) if done else []
    rungs = (budget.trials - len(past)) * budget.rungs
    rungs += sum(budget.rungs - trial.reached for trial in past if trial.unfinished)
    at_most, share = rungs * epochs / budget.rungs, budget.epochs_expected / budget.epochs_at_most
    more = " more" if done else ""
    text = f"about {format_epochs(at_most * share)} of " if budget.halving else ""
    text += f"{format_epochs(at_most)}{more} epochs of {len(plan.search_data.train):,} rows"
    minutes = _minutes(plan, rungs * share, done)
    if config.search.open:
        # How many trials that will be shows only as they run.
        many = f": about {_count(budget.trials, 'trial')}" if plan.estimate and not done else ", trials"
        text = f"{minutes}{many} of {epochs} epochs of {len(plan.search_data.train):,} rows"
    if plan.finalists:
        text += f", {plan.finalists * epochs} of all {len(plan.dataset.train):,} rows for the finalists"
    count, seeds = config.choice.confirmed
    if count:
        text += f", {count * seeds * epochs} to confirm"
    untuned = config.compare_untuned and not (done and done.result and done.result.untuned)
    if compared := epochs * (untuned + bool(plan.dataset.original_names)):
        text += f", {compared} to compare"
    return text if config.search.open or not minutes else f"{text}; {minutes}"


def _minutes(plan: SweepPlan, rungs: float, done: SweepRecord | None) -> str:
    """How long that takes, in words; empty where nobody knows.

    Args:
        rungs: of trials that are still to come.
    """
    limit, estimate = plan.config.search.max_minutes, plan.estimate
    most = None
    if limit is not None:
        most = max(60 * limit - (done.seconds if done else 0.0), 0.0)
    if estimate is None or plan.config.search.open:
        return "" if most is None else f"{minutes_text(most)}{' more' if done else ''}"
    seconds = estimate.total
    if done:
        seconds = rungs * estimate.rung / plan.resources.concurrency + estimate.after
    text = f"some {minutes_text(seconds)}"
    return text if most is None else f"{text}, {minutes_text(most)} at most"


def _on_part(plan: SweepPlan) -> str:
    """The part of the rows that the search's trials train on, as part of a sentence."""
    if plan.part is None:
        return ""
    rows, of = len(plan.part.train), len(plan.dataset.train)
    return f"on {share_text(rows / of)} of the rows ({rows:,}) "


def _lower_rate(plan: SweepPlan) -> str:
    """How much lower the finalists' learning rate is, as part of a sentence; empty where it is not searched."""
    if plan.part is None or "learning_rate" not in plan.space.searched:
        return ""
    return f", at {rate_factor(len(plan.part.train), len(plan.dataset.train)):.2f} of their rate"


def _finalists(plan: SweepPlan) -> str:
    """How many finalists there are: the best, and the known-good start where it is not among them."""
    best = min(plan.config.search.finalists_wanted, plan.finalists)
    return f"the best {best}" + (" and the start" if plan.finalists > best else "")


def kinds_of(names: Sequence[str]) -> str:
    """Module names without layer numbers, each once, such as `attention.self.query`."""
    kinds = dict.fromkeys(_last_parts(name) for name in names)
    return ", ".join(kinds)


def minutes_text(seconds: float) -> str:
    """Seconds as minutes or hours, as exactly as an estimate is: 40 seconds, 9 minutes, 2.5 hours."""
    if seconds < 60:
        return _count(math.ceil(seconds / 10) * 10, "second")
    if seconds < 5400:
        return _count(round(seconds / 60, 1 if seconds < 300 else None), "minute")
    return _count(round(seconds / 3600, 1), "hour")


def _last_parts(name: str) -> str:
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else name


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" + ("" if number == 1 else "s")
