"""An evaluation for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from lorasweep.training.errors import counted
from lorasweep.training.metrics import metric_words
from lorasweep.training.scores.calibration import BINS
from lorasweep.tuning.adapters.apply.evaluate import FileEvaluation
from lorasweep.tuning.record.words import score_text

MOST_MATRIX_CLASSES = 7
"""A confusion matrix of more classes does not fit 80 columns."""
MOST_CONFUSIONS = 10
LABEL_WIDTH = 36
"""Characters shown of a label, so that a table fits 80 columns."""


def evaluation_text(evaluation: FileEvaluation) -> RenderableType:
    """A report of at most 80 columns: the scores, a line for each class, and the confusions."""
    parts: list[RenderableType] = [
        f"{escape(evaluation.data)}: {counted(evaluation.rows, 'row')}, "
        f"{escape(' + '.join(evaluation.text_columns))} → {escape(evaluation.label_column)}",
        *_left_out(evaluation),
        "",
        *_scores_lines(evaluation),
        "",
        _classes_table(evaluation),
    ]
    confusions = evaluation.confusions() if not evaluation.multi_label else []
    if evaluation.multi_label and len(evaluation.label_names) <= MOST_MATRIX_CLASSES:
        parts += ["", _matrix_table(evaluation, "has ↓  is given →")]
    if confusions and len(evaluation.label_names) <= MOST_MATRIX_CLASSES:
        parts += ["", _matrix_table(evaluation)]
    elif confusions:
        parts += ["", _confusions_table(confusions)]
    return Group(*parts)


def _left_out(evaluation: FileEvaluation) -> list[str]:
    lines = [f"left out: {counted(rows, 'row')}, {reason}" for reason, rows in evaluation.dropped.items()]
    if evaluation.unknown_labels:
        unknown = list(evaluation.unknown_labels.items())
        named = ", ".join(f"{name!r} {rows:,}" for name, rows in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        total = sum(evaluation.unknown_labels.values())
        lines.append(
            f"left out: {counted(total, 'row')} whose label the adapter does not know: {named}{more}"
        )
    return [f"[yellow]{escape(line)}[/yellow]" for line in lines]


def _scores_lines(evaluation: FileEvaluation) -> list[str]:
    mean = sum(entry.rows * entry.confidence for entry in evaluation.bins) / evaluation.rows
    scores = evaluation.scores
    if evaluation.multi_label:
        more = scores.more
        return [
            f"micro-F1           [bold]{more['micro_f1']:>6.1%}[/bold]",
            f"macro-F1           {scores.macro_f1:>6.1%}",
            f"average precision  {score_text(more.get('average_precision'), 'average_precision'):>6}  "
            "[dim]mean over labels[/dim]",
            f"subset accuracy    {scores.accuracy:>6.1%}  [dim]texts with exactly their labels[/dim]",
            f"Hamming loss       {more['hamming_loss']:>6.1%}  [dim]of all texts and labels[/dim]",
            f"cross entropy      {scores.loss:>6.3f}  [dim]mean over texts and labels, in nats[/dim]",
            f"calibration error  {evaluation.calibration_error:>6.1%}  "
            f"[dim]{BINS} bins; over texts and labels[/dim]",
        ]
    cuts = [
        f"threshold          {value:>6.4g}  {escape(label)}" for label, value in evaluation.thresholds.items()
    ]
    return [
        *cuts,
        f"accuracy           [bold]{scores.accuracy:>6.1%}[/bold]",
        f"macro-F1           {scores.macro_f1:>6.1%}",
        *(f"{metric_words(name):<17}  {score_text(value, name):>6}" for name, value in scores.more.items()),
        f"cross entropy      {scores.loss:>6.3f}  [dim]mean, in nats[/dim]",
        f"calibration error  {evaluation.calibration_error:>6.1%}  "
        f"[dim]{BINS} bins; mean confidence {mean:.1%}[/dim]",
    ]


def _classes_table(evaluation: FileEvaluation) -> Table:
    """The largest classes first; "-" where no row defines the score."""
    several = evaluation.multi_label
    table = _table(["label"], ["precision", "recall", "F1", "rows", *(["threshold"] if several else [])])
    guessed = evaluation.confusion.sum(axis=0)
    for number, entry in sorted(enumerate(evaluation.classes), key=lambda pair: -pair[1].rows):
        table.add_row(
            escape(entry.label),
            f"{entry.precision:.1%}" if guessed[number] or several else "-",
            f"{entry.recall:.1%}" if entry.rows else "-",
            f"{entry.f1:.1%}" if entry.rows or guessed[number] else "-",
            f"{entry.rows:,}",
            *([f"{evaluation.thresholds[entry.label]:.3f}"] if several else []),
        )
    return table


def _matrix_table(evaluation: FileEvaluation, heading: str = "true ↓  predicted →") -> Table:
    """Rows by true and predicted label; a column's number is the one before its label."""
    numbers = [str(number) for number in range(1, len(evaluation.label_names) + 1)]
    table = _table([heading], numbers, label_width=LABEL_WIDTH - 12)
    for number, counts in enumerate(evaluation.confusion.tolist()):
        cells = [f"[bold]{c}[/bold]" if i == number else str(c) if c else "·" for i, c in enumerate(counts)]
        table.add_row(f"{number + 1} {escape(evaluation.label_names[number])}", *cells)
    return table


def _confusions_table(confusions: list[tuple[str, str, int]]) -> Table:
    table = _table(["most confused: true", "→ predicted"], ["rows"], label_width=LABEL_WIDTH - 4)
    for true, guess, rows in confusions[:MOST_CONFUSIONS]:
        table.add_row(escape(true), f"→ {escape(guess)}", f"{rows:,}")
    return table


def _table(labels: list[str], numbers: list[str], label_width: int = LABEL_WIDTH) -> Table:
    """Columns of labels, cut at `label_width` characters, then columns of numbers."""
    table = Table(box=None, padding=(0, 2 if len(numbers) < 5 else 1, 0, 0), header_style="bold")
    for name in labels:
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=label_width)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table
