"""A comparison as a person reads it: tables for the terminal, the same in Markdown, and what the study said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from lorasweep.tuning.compare.record import ComparedRow, CompareSettings
from lorasweep.tuning.compare.rows import FULL_FP32, LORA_AMP, TUNED
from lorasweep.tuning.record.results import TestScores
from lorasweep.tuning.record.words import duration, parameters_text

OPERATORS = ("linear (addmm, mm)", "attention", "gelu", "softmax", "layer norm")
MEGABYTE = 1e6
NO_AMP = (
    "AMP has no type to use here: the machine has neither bf16 in hardware nor a GPU, or the base model's code runs in "
    "fp32 only. Rows with AMP would be those in fp32 again, and stand here once."
)


@dataclass(frozen=True)
class Rows:
    """One table: a title, its columns (the first one holds names), and its rows."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""


def tables(rows: Sequence[ComparedRow]) -> list[Rows]:
    """Everything that was measured, in tables of at most 80 columns."""
    done = [row for row in rows if row.error is None and row.same_as is None]
    return [
        _scores(done),
        _costs(done),
        *_latencies(done),
        _operators(done, "milliseconds"),
        _operators(done, "megabytes"),
    ]


def _scores(rows: Sequence[ComparedRow]) -> Rows:
    cells = []
    for row in rows:
        assert row.test is not None
        low, high = row.interval["accuracy"]
        cells.append([name(row), *_figures(row.test, f"{low:.1%} to {high:.1%}")])
        if row.merged is not None:
            cells.append(["  and merged afterwards", *_figures(row.merged, "")])
    return Rows("test split", ("", "accuracy", "95 % interval", "macro-F1", "loss"), cells)


def _figures(test: TestScores, interval: str) -> list[str]:
    return [f"{test.accuracy:.2%}", interval, f"{test.macro_f1:.2%}", f"{test.loss:.3f}"]


def _costs(rows: Sequence[ComparedRow]) -> Rows:
    cells = [
        [
            name(row),
            f"{row.epoch_seconds:.1f} s",
            f"{row.samples_per_second:.0f}",
            parameters_text(row.trainable_parameters),
            f"{row.stored_bytes / MEGABYTE:.2f} MB",
            f"{row.peak_bytes / MEGABYTE:.0f} MB",
        ]
        for row in rows
    ]
    note = (
        "An epoch is the training rows by the median speed between evaluations, the first stretch and the "
        "evaluations left out. Stored is what has to be kept beside the base model, or instead of it."
    )
    return Rows("training", ("", "epoch", "texts/s", "trained", "stored", "memory"), cells, note)


def _latencies(rows: Sequence[ComparedRow]) -> list[Rows]:
    found = []
    for batch in dict.fromkeys(entry.batch for row in rows for entry in row.latencies):
        precisions = list(dict.fromkeys(entry.precision for row in rows for entry in row.latencies))
        cells = []
        for row in rows:
            for form in dict.fromkeys(entry.form for entry in row.latencies):
                times = {
                    entry.precision: f"{entry.median:.2f} ({entry.p95:.2f})"
                    for entry in row.latencies
                    if entry.batch == batch and entry.form == form
                }
                what = name(row) if form == "whole" else f"{name(row)}, {form}"
                cells.append([what, *(times.get(precision, "-") for precision in precisions)])
        texts = "one text" if batch == 1 else f"{batch} texts"
        found.append(Rows(f"latency, {texts}: median (95th percentile), ms", ("", *precisions), cells))
    return found


def _operators(rows: Sequence[ComparedRow], what: str) -> Rows:
    cells = []
    for row in rows:
        used = {operator.name: getattr(operator, what) for operator in row.operators}
        rest = sum(value for key, value in used.items() if key not in OPERATORS)
        shown = [used.get(key, 0.0) for key in OPERATORS]
        cells.append([name(row), *(f"{value:.0f}" for value in (*shown, rest))])
    title = "a training step by operator, " + ("ms" if what == "milliseconds" else "MB allocated")
    return Rows(title, ("", "addmm/mm", "attention", "gelu", "softmax", "norm", "other"), cells)


def name(row: ComparedRow) -> str:
    """A row's name with its precision."""
    if " + AMP" in row.plan.name:
        return row.plan.name.replace(" + AMP", f", {row.precision}")
    return f"{row.plan.name}, {row.plan.precision}"


def study_table(rows: Sequence[ComparedRow]) -> Rows:
    """The figures of the study that lorasweep began with, and their counterparts here."""
    by = {row.plan.id: row for row in rows if row.error is None}
    full, lora, tuned = by.get(FULL_FP32), by.get(LORA_AMP), by.get(TUNED)

    def figures(row: ComparedRow | None) -> list[str]:
        if row is None or row.test is None:
            return ["-"] * 5
        return [
            f"{row.test.accuracy:.2%}",
            f"{row.test.loss:.3f}",
            f"{row.epoch_seconds:.0f} s",
            parameters_text(row.trainable_parameters),
            f"{row.stored_bytes / MEGABYTE:.2f} MB",
        ]

    names = ("test accuracy", "test loss", "an epoch", "trained parameters", "stored")
    study_full = ("71.25 %", "0.1288", "~1,600 s", "110 M", "419.03 MB")
    study_lora = ("61.78 %", "1.4186", "~430 s", "344.1 K", "1.25 MB")
    cells = [
        [f"{what}, full", theirs, here, ""]
        for what, theirs, here in zip(names, study_full, figures(full), strict=True)
    ]
    cells += [
        [f"{what}, LoRA + AMP", theirs, here, best]
        for what, theirs, here, best in zip(names, study_lora, figures(lora), figures(tuned), strict=True)
    ]
    cells.append(["latency of a text, ratio", "0.68", *_ratios(full, [lora, tuned], _latency)])
    cells.append(["addmm and gelu, MB, ratio", "about 0.5", *_ratios(full, [lora, tuned], _key_memory)])
    cells.append(["an epoch, ratio", "0.27", *_ratios(full, [lora, tuned], lambda row: row.epoch_seconds)])
    return Rows(
        "beside the study",
        ("", "the study", "here", "tuned"),
        cells,
        "Ratios are to full fine-tuning in fp32; latency is the adapter's once it is merged.",
    )


def _ratios(
    base: ComparedRow | None, rows: Sequence[ComparedRow | None], of: Callable[[ComparedRow], float | None]
) -> list[str]:
    below = of(base) if base is not None else None
    values = [of(row) if row is not None else None for row in rows]
    return [f"{value / below:.2f}" if value and below else "-" for value in values]


def _latency(row: ComparedRow) -> float | None:
    """Of one text: whole in fp32, an adapter merged in the precision of its training."""
    form, precision = ("whole", "fp32") if row.plan.settings.method == "full" else ("merged", row.precision)
    times = [
        entry.median
        for entry in row.latencies
        if entry.batch == 1 and entry.form == form and entry.precision == precision
    ]
    return times[0] if times else None


def _key_memory(row: ComparedRow) -> float | None:
    return sum(use.megabytes for use in row.operators if use.name in ("linear (addmm, mm)", "gelu")) or None


def comparison_text(rows: Sequence[ComparedRow]) -> RenderableType:
    """All tables for a terminal of 80 columns, and the rows that failed."""
    parts: list[RenderableType] = []
    for found in (*tables(rows), study_table(rows)):
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for number, column in enumerate(found.columns):
            table.add_column(
                found.title if number == 0 else column,
                justify="left" if number == 0 else "right",
                overflow="fold",
            )
        for cells in found.rows:
            table.add_row(*map(escape, cells))
        parts += [table, ""]
    parts += [f"[red]{escape(row.plan.name)}[/red] failed: {escape(row.error)}" for row in rows if row.error]
    if any(row.same_as for row in rows):
        parts.append(NO_AMP)
    return Group(*parts)


def comparison_markdown(
    rows: Sequence[ComparedRow], settings: CompareSettings, about: Sequence[tuple[str, str]]
) -> str:
    """The same as a page of Markdown, with what it was measured on.

    Args:
        about: facts of the comparison, by name.
    """
    lines = [f"# Comparison {settings.name}", ""]
    lines += [f"- {name}: {value}" for name, value in about]
    lines += ["", "Rows:", ""]
    lines += [f"- {row.plan.name}: {row.plan.about}" for row in rows]
    lines += [f"- **{row.plan.name} failed**: {row.error}" for row in rows if row.error]
    if any(row.same_as for row in rows):
        lines += ["", NO_AMP]
    for found in (*tables(rows), study_table(rows)):
        lines += ["", f"## {found.title[:1].upper()}{found.title[1:]}", ""]
        lines.append("| " + " | ".join(found.columns) + " |")
        lines.append("|---" + "|---:" * (len(found.columns) - 1) + "|")
        lines += ["| " + " | ".join(cells) + " |" for cells in found.rows]
        if found.note:
            lines += ["", found.note]
    return "\n".join(lines) + "\n"


def facts(rows: Sequence[ComparedRow], settings: CompareSettings) -> list[tuple[str, str]]:
    """What was compared on what."""
    row = next((row for row in rows if row.error is None), None)
    found = [
        ("base model", settings.base_model),
        ("sweep", settings.sweep),
        (
            "budget",
            f"{settings.training.epochs} epochs, batches of {settings.batch_size} where nothing is tuned",
        ),
        ("seed", str(settings.training.seed)),
    ]
    if row is not None:
        here = row.machine
        gpus = here.get("gpus") or []
        versions = ", ".join(f"{package} {number}" for package, number in here.get("packages", {}).items())
        found += [
            ("training rows", f"{row.train_rows:,}"),
            ("machine", f"{', '.join(gpus) or here.get('cpu', '')}, {here.get('cores', '?')} cores"),
            ("software", f"Python {here.get('python', '?')}, {versions}"),
            ("time", duration(sum(entry.ended - entry.started for entry in rows))),
        ]
    return found
