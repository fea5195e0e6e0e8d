"""What a person reads before, during and after a sweep: summaries and tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from search_spaces.domains import show
from training.data import describe, summary_lines
from training.evaluate import higher_is_better
from training.settings import Metric
from tuning.plan import SweepPlan
from tuning.record import SweepFolder, SweepResult, TrialRecord, rank_trials

METRIC_NAMES: dict[Metric, str] = {"accuracy": "accuracy", "macro_f1": "macro-F1", "loss": "loss"}
# More columns than these would each be cut to a letter or two in 80 columns.
MOST_COLUMNS = 5
SHORT_NAMES = {
    "target_modules": "targets",
    "learning_rate": "rate",
    "batch_size": "batch",
    "weight_decay": "decay",
}


def plan_text(plan: SweepPlan) -> RenderableType:
    """What a sweep will do and what it may cost, shown before the first trial."""
    config, resources, budget = plan.config, plan.resources, plan.budget
    tokens = plan.encoded.token_summary()
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    lines = summary_lines(describe(plan.dataset))
    lines.append(
        f"tokens a row: median {tokens['median']}, 95 % up to {tokens['p95']}, longest {tokens['max']}; "
        f"{tokens['truncated']:,} rows cut off at {config.training.max_length}"
    )
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
        f"{budget.trials} by {config.search.sampler.upper()}, "
        f"{resources.concurrency} at once with {where} each",
    )
    halving = ", ".join(str(rung) for rung in budget.halving)
    stopping = (
        f"ASHA stops weak ones after rung {halving}: the best 1/{config.search.reduction_factor} go on"
        if budget.halving
        else "none is stopped early"
    )
    table.add_row("rungs", f"{budget.rungs} evaluations a full trial; {stopping}")
    table.add_row(
        "cost",
        f"{budget.epochs_at_most:.3g} epochs of {len(plan.dataset.train):,} rows at most, "
        f"about {budget.epochs_expected:.3g} as expected",
    )
    return table


def kinds_of(names: Sequence[str]) -> str:
    """Module names with their layer numbers left out, each kind once, such as `attention.self.query`."""
    kinds = dict.fromkeys(_last_parts(name) for name in names)
    return ", ".join(kinds)


def _last_parts(name: str) -> str:
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else name


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
        reached = trial.evaluations[-1]["rung"] if trial.evaluations else 0
        settings = [setting_text(trial.settings.get(name)) for name in columns]
        table.add_row(
            trial.id,
            score_text(trial.score, metric),
            *map(escape, settings or [settings_line(trial.settings, searched)]),
            parameters_text(trial.trainable_parameters),
            f"{reached}/{rungs}",
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


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" + ("" if number == 1 else "s")


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
    if result.winner:
        parts += ["", _test_table(result, searched)]
    return Group(*parts)


def _test_table(result: SweepResult, searched: Sequence[str]) -> Table:
    assert result.winner is not None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column, justify in (
        ("test split", "left"),
        ("accuracy", "right"),
        ("macro-F1", "right"),
        ("loss", "right"),
    ):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("settings", overflow="fold")
    rows = [(f"winner {result.winner.id}", result.winner)]
    if result.untuned:
        rows.append(("untuned default", result.untuned))  # type: ignore[arg-type]
    for name, tested in rows:
        test = tested.test
        table.add_row(
            name,
            f"{test.accuracy:.1%}",
            f"{test.macro_f1:.1%}",
            f"{test.loss:.3f}",
            escape(settings_line(tested.settings, searched)),
        )
    if result.untuned:
        gain = 100 * (result.winner.test.accuracy - result.untuned.test.accuracy)
        table.add_row("tuning adds", f"{gain:+.1f} pts")
    return table


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
        "untuned": result.untuned.model_dump() if result and result.untuned else None,
    }
