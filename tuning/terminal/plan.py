"""The plan of a sweep as text: what it will do and what it may cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from lorasweep.training.data.summary import describe, summary_lines, token_line
from lorasweep.tuning.search.stopping import format_epochs, stopping_rule
from lorasweep.tuning.search.study import SAMPLERS
from lorasweep.tuning.sweep.choice import rule_text
from lorasweep.tuning.sweep.plan import SweepPlan


def plan_text(plan: SweepPlan) -> RenderableType:
    """A table of what the sweep will do, shown before the first trial."""
    config, resources, budget = plan.config, plan.resources, plan.budget
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    lines = summary_lines(describe(plan.dataset))
    lines.append(token_line(plan.encoded.token_summary(), config.training.max_length))
    table.add_row("data", escape("\n".join(lines)))
    columns = " + ".join(plan.dataset.text_columns)
    table.add_row("columns", escape(f"text {columns}, label {plan.dataset.label_column}"))
    table.add_row(
        "model",
        escape(f"{config.base_model} ({plan.base.model_type}), {plan.amp.name} on {plan.amp.device.type}"),
    )
    for choice, names in plan.target_modules.items():
        table.add_row("adapts", escape(f"{choice}: {len(names)} modules, {kinds_of(names)}"))
    space = "\n".join(f"{name}: {text}" for name, text in plan.space.describe())
    table.add_row("space", escape(f"{plan.space.name}\n{space}"))
    where = (
        f"{resources.gpus_per_trial:g} GPU"
        if resources.gpus_per_trial
        else _count(resources.cpus_per_trial, "core")
    )
    table.add_row(
        "trials",
        f"{budget.trials} by {SAMPLERS[config.search.sampler].label}, "
        f"{resources.concurrency} at once with {where} each",
    )
    stopping = stopping_rule(config.search).text(config.search, budget.halving)
    table.add_row("rungs", f"{budget.rungs} evaluations per full trial; {stopping}")
    count, seeds = config.choice.confirmed
    confirming = f", of the best {count} trials" if count else ""
    table.add_row("winner", f"{rule_text(config, bool(count))}{confirming}")
    table.add_row(
        "cost",
        f"at most {format_epochs(budget.epochs_at_most)} epochs of {len(plan.dataset.train):,} rows"
        + (f"; about {format_epochs(budget.epochs_expected)} with early stopping" if budget.halving else "")
        + (f"; {count * seeds * config.training.epochs} to confirm" if count else "")
        + (f"; {config.training.epochs} on the unmerged labels" if plan.dataset.original_names else ""),
    )
    return table


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
