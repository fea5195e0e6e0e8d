"""A comparison as a person reads it: its tables in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from lorasweep.training.metrics import Metric, metric_words
from lorasweep.training.threshold_rules import DEFAULT_RULE
from lorasweep.tuning.compare.record import ComparedRow, CompareSettings
from lorasweep.tuning.record.results import TestScores
from lorasweep.tuning.record.words import duration, parameters_text, threshold_rule

# Operators with a column of their own, and its head.
OPERATORS = {
    "linear (addmm, mm)": "addmm/mm",
    "attention": "attention",
    "gelu": "gelu",
    "softmax": "softmax",
    "layer norm": "norm",
}
MEGABYTE = 1e6
# Other programs that use more of the cores than this are told beside the latencies.
BUSY = 0.1
NO_AMP = (
    "AMP has no type to use here: the machine has neither bf16 in hardware nor a GPU, or the base model's code runs in "
    "fp32 only. Rows with AMP equal those in fp32 and are shown once."
)


class Rows(NamedTuple):
    """One table: a title, its columns (the first one holds names), and its rows."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""


def tables(rows: Sequence[ComparedRow]) -> list[Rows]:
    """All measurements, in tables of at most 80 columns."""
    done = [row for row in rows if row.error is None and row.same_as is None]
    lead = leading_metric(done)
    return [
        Rows(
            "test split",
            ("", metric_words(lead), "95 % interval", "macro-F1", "loss"),
            list(_scores(done, lead)),
        ),
        Rows(
            "training",
            ("", "epoch", "texts/s", "trained", "stored", "memory"),
            [[name(row), *_costs(row)] for row in done],
            "An epoch is the training rows by the median speed between evaluations; evaluations and the time before "
            "the first one do not count. Stored are the weights needed beside the base model, or in place of it.",
        ),
        *_latencies(done),
        _operators(done, "milliseconds", "ms"),
        _operators(done, "megabytes", "MB allocated"),
    ]


def leading_metric(rows: Sequence[ComparedRow]) -> Metric:
    """The metric that rows are told apart by: of several labels a text micro-F1, else accuracy."""
    several = any(row.test is not None and "micro_f1" in row.test.more for row in rows)
    return "micro_f1" if several else "accuracy"


def _scores(rows: Sequence[ComparedRow], lead: Metric) -> Iterator[list[str]]:
    def cells(test: TestScores, interval: str) -> list[str]:
        return [f"{test.by(lead):.2%}", interval, f"{test.macro_f1:.2%}", f"{test.loss:.3f}"]

    for row in rows:
        assert row.test is not None
        low, high = row.interval[lead]
        yield [name(row), *cells(row.test, f"{low:.1%} to {high:.1%}")]
        if row.merged is not None:
            yield ["  and merged afterwards", *cells(row.merged, "")]


def _costs(row: ComparedRow) -> list[str]:
    return [
        f"{row.epoch_seconds:.1f} s",
        f"{row.samples_per_second:.0f}",
        parameters_text(row.trainable_parameters),
        f"{row.stored_bytes / MEGABYTE:.2f} MB",
        f"{row.peak_bytes / MEGABYTE:.0f} MB",
    ]


def _latencies(rows: Sequence[ComparedRow]) -> Iterator[Rows]:
    every = [entry for row in rows for entry in row.latencies]
    precisions = tuple(dict.fromkeys(entry.precision for entry in every))
    for batch in dict.fromkeys(entry.batch for entry in every):
        cells = []
        for row in rows:
            times: dict[str, dict[str, str]] = {}
            for entry in row.latencies:
                if entry.batch == batch:
                    times.setdefault(entry.form, {})[entry.precision] = (
                        f"{entry.median:.2f} ({entry.p95:.2f})"
                    )
            for form, by in times.items():
                what = name(row) if form == "whole" else f"{name(row)}, {form}"
                cells.append([what, *(by.get(precision, "-") for precision in precisions)])
        texts = "one text" if batch == 1 else f"{batch} texts"
        title = f"latency, {texts}: median (95th percentile), ms"
        yield Rows(title, ("", *precisions), cells, busy_note(rows))


def _operators(rows: Sequence[ComparedRow], figure: str, unit: str) -> Rows:
    cells = []
    for row in rows:
        used = {use.name: float(getattr(use, figure)) for use in row.operators}
        shown = [used.pop(key, 0.0) for key in OPERATORS]
        cells.append([name(row), *(f"{value:.0f}" for value in (*shown, sum(used.values())))])
    return Rows(f"a training step by operator, {unit}", ("", *OPERATORS.values(), "other"), cells)


def busy_note(rows: Sequence[ComparedRow]) -> str:
    """Which rows' latencies were taken while other programs used the cores; empty if none."""
    busy = [row for row in rows if row.error is None and row.same_as is None and row.others_share > BUSY]
    if not busy:
        return ""
    shares = ", ".join(f"{row.others_share:.0%} at {name(row)}" for row in busy)
    return (
        f"The machine was busy while latencies were taken: other programs used {shares} of the cores' time. On an "
        "idle machine they are shorter, and rows compare."
    )


def name(row: ComparedRow) -> str:
    """A row's name with its precision."""
    if " + AMP" in row.plan.name:
        return row.plan.name.replace(" + AMP", f", {row.precision}")
    return f"{row.plan.name}, {row.plan.precision}"


def comparison_text(rows: Sequence[ComparedRow]) -> RenderableType:
    """All tables for a terminal of 80 columns."""
    parts: list[RenderableType] = []
    for title, columns, cells, _ in tables(rows):
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column(title, overflow="fold")
        for column in columns[1:]:
            table.add_column(column, justify="right", overflow="fold")
        for line in cells:
            table.add_row(*map(escape, line))
        parts += [table, ""]
    parts += [f"[red]{escape(row.plan.name)}[/red] failed: {escape(row.error)}" for row in rows if row.error]
    # In a table, which breaks them between words, as the console does not.
    notes = Table(box=None, show_header=False, padding=(0, 0, 1, 0))
    for note in [NO_AMP] * any(row.same_as for row in rows) + [note for note in [busy_note(rows)] if note]:
        notes.add_row(escape(note))
    return Group(*parts, notes)


def comparison_markdown(rows: Sequence[ComparedRow], settings: CompareSettings) -> str:
    """All tables as a page of Markdown, with what was compared on which machine."""
    lines = [f"# Comparison {settings.name}", "", *_facts(rows, settings), "", "Rows:", ""]
    lines += [f"- {row.plan.name}: {row.plan.about}" for row in rows]
    lines += [f"- **{row.plan.name} failed**: {row.error}" for row in rows if row.error]
    lines += ["", NO_AMP] * any(row.same_as for row in rows)
    for title, columns, cells, note in tables(rows):
        lines += ["", f"## {title[:1].upper()}{title[1:]}", "", f"| {' | '.join(columns)} |"]
        lines.append("|---" + "|---:" * (len(columns) - 1) + "|")
        lines += [f"| {' | '.join(line)} |" for line in cells]
        lines += ["", note] if note else []
    return "\n".join(lines) + "\n"


def _facts(rows: Sequence[ComparedRow], settings: CompareSettings) -> Iterator[str]:
    yield f"- base model: {settings.base_model}"
    yield f"- sweep: {settings.sweep}"
    yield f"- budget: {settings.training.epochs} epochs; batches of {settings.batch_size} in untuned rows"
    yield f"- seed: {settings.training.seed}"
    done = next((row for row in rows if row.error is None), None)
    if done is None:
        return
    here = done.machine
    hardware = ", ".join(here.get("gpus") or [here.get("cpu", "")])
    packages = ", ".join(f"{package} {version}" for package, version in here.get("packages", {}).items())
    yield f"- training rows: {done.train_rows:,}"
    if done.thresholds:
        yield f"- thresholds: {threshold_rule(settings.threshold or DEFAULT_RULE)}"
    yield f"- machine: {hardware}, {here.get('cores', '?')} cores"
    yield f"- software: Python {here.get('python', '?')}, {packages}"
    yield f"- time: {duration(sum(row.ended - row.started for row in rows))}"
