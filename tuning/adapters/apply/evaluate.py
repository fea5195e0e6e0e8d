"""An exported adapter scored on labelled rows: for the terminal, and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from lorasweep.training.data.columns import find_label, find_text, strings, texts_and_pairs
from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files.tables import read_table, table_of
from lorasweep.training.inference.classifier import Classifier, predict, probabilities
from lorasweep.training.scores.calibration import (
    BINS,
    ConfidenceBin,
    confidence_bins,
    expected_calibration_error,
)
from lorasweep.training.scores.scores import ClassScores, Scores, score, score_classes

# A confusion matrix of more classes does not fit 80 columns, nor into one's head.
MOST_MATRIX_CLASSES = 7
MOST_CONFUSIONS = 10
# Characters of a label's name, so that a table keeps to 80 columns.
LABEL_WIDTH = 36


@dataclass(frozen=True)
class FileEvaluation:
    """Scores of a classifier on labelled rows.

    Attributes:
        adapter: the folder, as given.
        data: the file, as given, or "DataFrame".
        text_columns: one, or two read as a pair.
        label_names: in the order of the logits.
        classes: precision, recall, F1 and rows of each label, in the same order.
        calibration_error: expected calibration error, in [0, 1].
        bins: what it was made from.
        confusion: rows by true (first axis) and predicted label; int64, shape (classes, classes).
        dropped: reason → rows that have no text or label, or are no JSON objects.
        unknown_labels: label that the adapter does not know → its rows, which were left out.
    """

    adapter: str
    data: str
    text_columns: tuple[str, ...]
    label_column: str
    label_names: tuple[str, ...]
    rows: int
    scores: Scores
    classes: list[ClassScores]
    calibration_error: float
    bins: list[ConfidenceBin]
    confusion: np.ndarray
    dropped: dict[str, int]
    unknown_labels: dict[str, int]

    def confusions(self) -> list[tuple[str, str, int]]:
        """True label, predicted label and rows of each confusion that occurs, the most frequent first."""
        wrong = self.confusion * (1 - np.eye(len(self.confusion), dtype=np.int64))
        found = [(int(true), int(guess), int(wrong[true, guess])) for true, guess in np.argwhere(wrong)]
        names = self.label_names
        return [(names[t], names[g], rows) for t, g, rows in sorted(found, key=lambda entry: -entry[2])]


def evaluate_file(
    classifier: Classifier,
    data: Path | pd.DataFrame,
    *,
    adapter: Path,
    text: tuple[str, ...] = (),
    label: str | None = None,
    columns: tuple[str, ...] = (),
) -> FileEvaluation:
    """Predict labelled rows in fp32 and compare with their labels.

    Args:
        data: rows in memory, or a file: JSON lines, a JSON array, CSV, TSV or Parquet, plain or packed.
        adapter: the classifier's folder, for the record.
        text: the text columns; those the classifier was trained on if left out.
        label: the label column; recognised if left out.
        columns: names for a CSV or TSV without a header line.

    Raises:
        DataError: a file that cannot be read, columns that are not there, no rows, no label the classifier
            knows.
        SettingsError: one column for text and label.
        ModelError: two texts a row for a classifier of one.
    """
    table = table_of(data) if isinstance(data, pd.DataFrame) else read_table(data, columns)
    names = find_text(table, text or classifier.text_columns, taken=[label] if label else [])
    label_column = find_label(table, label, taken=names)
    if label_column in names:
        raise SettingsError(
            f"--text {shown(names)}, --label {label_column!r} name a column twice; each has one of its own"
        )
    texts, pairs = texts_and_pairs(table, names)
    labels = strings(table, label_column, "--label")
    index = {name: number for number, name in enumerate(classifier.label_names)}
    complete = [row for row, text in enumerate(texts) if text and labels[row]]
    known = [row for row in complete if labels[row] in index]
    unknown = Counter(labels[row] for row in complete if labels[row] not in index)
    if not known:
        if not complete:
            raise DataError(
                f"{table.name}: no row has both a text ({shown(names)}) and a label ({label_column!r}); "
                "name other columns with --text and --label"
            )
        raise DataError(
            f"{table.name}: column {label_column!r} holds no label that {adapter} knows: it holds "
            f"{shown([name for name, _ in unknown.most_common()], 8)}, the adapter knows "
            f"{shown(classifier.label_names, 8)}; name another column with --label"
        )
    logits = predict(
        classifier,
        [texts[row] for row in known],
        [pairs[row] for row in known] if pairs is not None else None,
    )
    truth = np.array([index[labels[row]] for row in known], dtype=np.int64)
    shares = probabilities(logits)
    classes = len(index)
    confusion = np.bincount(truth * classes + logits.argmax(axis=1), minlength=classes * classes)
    dropped = {
        "not a JSON object": table.unparsable,
        "no text": sum(not text for text in texts),
        "no label": sum(bool(text) and not labels[row] for row, text in enumerate(texts)),
    }
    return FileEvaluation(
        adapter=str(adapter),
        data=table.name if isinstance(data, pd.DataFrame) else str(data),
        text_columns=names,
        label_column=label_column,
        label_names=classifier.label_names,
        rows=len(known),
        scores=score(logits, truth),
        classes=score_classes(logits, truth, classifier.label_names),
        calibration_error=expected_calibration_error(shares, truth),
        bins=confidence_bins(shares, truth),
        confusion=confusion.reshape(classes, classes).astype(np.int64),
        dropped={reason: rows for reason, rows in dropped.items() if rows},
        unknown_labels=dict(unknown.most_common()),
    )


def evaluation_entries(found: FileEvaluation) -> dict[str, Any]:
    """Everything, for `--json`: stable names that other programs may rely on."""
    entries = asdict(found)
    entries["confusion"] = found.confusion.tolist()
    entries["confidence_bins"] = entries.pop("bins")
    entries |= entries.pop("scores")
    return entries


def evaluation_text(found: FileEvaluation) -> RenderableType:
    """What a person reads, in at most 80 columns: scores, a line a class, and where it is wrong."""
    parts: list[RenderableType] = [
        f"{escape(found.data)}: {found.rows:,} rows, {escape(' + '.join(found.text_columns))} → "
        f"{escape(found.label_column)}",
        *_left_out(found),
        "",
        _scores_table(found),
        "",
        _classes_table(found),
    ]
    confusions = found.confusions()
    if confusions and len(found.label_names) <= MOST_MATRIX_CLASSES:
        parts += ["", _matrix_table(found)]
    elif confusions:
        parts += ["", _confusions_table(confusions)]
    return Group(*parts)


def _left_out(found: FileEvaluation) -> list[str]:
    lines = [f"left out: {rows:,} rows, {reason}" for reason, rows in found.dropped.items()]
    if found.unknown_labels:
        unknown = list(found.unknown_labels.items())
        named = ", ".join(f"{name!r} {rows:,}" for name, rows in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        total = sum(found.unknown_labels.values())
        lines.append(f"left out: {total:,} rows whose label the adapter does not know: {named}{more}")
    return [f"[yellow]{escape(line)}[/yellow]" for line in lines]


def _scores_table(found: FileEvaluation) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    table.add_row("accuracy", f"[bold]{found.scores.accuracy:.1%}[/bold]")
    table.add_row("macro-F1", f"{found.scores.macro_f1:.1%}")
    table.add_row("cross entropy", f"{found.scores.loss:.3f}", "mean, in nats")
    mean = sum(entry.rows * entry.confidence for entry in found.bins) / found.rows
    remark = f"{BINS} bins; mean confidence {mean:.1%}"
    table.add_row("calibration error", f"{found.calibration_error:.1%}", remark)
    return table


def _classes_table(found: FileEvaluation) -> Table:
    """The classes with most rows first; "-" where the file has no row to tell from."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("label", no_wrap=True, overflow="ellipsis", max_width=LABEL_WIDTH)
    for column in ("precision", "recall", "F1", "rows"):
        table.add_column(column, justify="right", no_wrap=True)
    guessed = found.confusion.sum(axis=0)
    for number, entry in sorted(enumerate(found.classes), key=lambda pair: -pair[1].rows):
        table.add_row(
            escape(entry.label),
            f"{entry.precision:.1%}" if guessed[number] else "-",
            f"{entry.recall:.1%}" if entry.rows else "-",
            f"{entry.f1:.1%}" if entry.rows or guessed[number] else "-",
            f"{entry.rows:,}",
        )
    return table


def _matrix_table(found: FileEvaluation) -> Table:
    """Rows by true and predicted label; the columns go by the number before the label."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("true ↓  predicted →", no_wrap=True, overflow="ellipsis", max_width=LABEL_WIDTH - 12)
    for number in range(1, len(found.label_names) + 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, counts in enumerate(found.confusion.tolist()):
        cells = [f"[bold]{c}[/bold]" if i == number else str(c) if c else "·" for i, c in enumerate(counts)]
        table.add_row(f"{number + 1} {escape(found.label_names[number])}", *cells)
    return table


def _confusions_table(confusions: list[tuple[str, str, int]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("most confused: true", "→ predicted"):
        table.add_column(column, no_wrap=True, overflow="ellipsis", max_width=LABEL_WIDTH - 4)
    table.add_column("rows", justify="right", no_wrap=True)
    for true, guess, rows in confusions[:MOST_CONFUSIONS]:
        table.add_row(escape(true), f"→ {escape(guess)}", f"{rows:,}")
    return table
