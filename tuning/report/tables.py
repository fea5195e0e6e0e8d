"""A sweep's tables as CSV, for programs and spreadsheets: its trials, and the winner class by class."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.report.reading import ReportData
from lorasweep.tuning.report.rows import CONTROL, searched_columns


def csv_tables(data: ReportData) -> dict[str, str]:
    """File name → CSV."""
    # What was searched comes first: MLflow shows the table's left side.
    names = list(dict.fromkeys([*searched_columns(data.record), *Hyperparameters.model_fields]))
    head = ["trial", "state", "score", *names, "trainable_parameters", "rungs", "best_rung"]
    head += ["seconds", "started", "ended", "error", "notes", "finalist_of"]
    trials = [
        [
            *(trial.id, trial.state, trial.score),
            *(getattr(trial.hyperparameters, name) for name in names),
            *(trial.trainable_parameters, len(trial.evaluations), trial.best_rung),
            *(trial.seconds, trial.started, trial.ended, trial.error),
            *("; ".join(trial.notes), trial.finalist_of),
        ]
        for trial in data.record.trials
    ]
    tables = {"trials.csv": csv_text([head, *trials])}
    if data.tested is None:
        return tables
    classes = [[c.label, c.precision, c.recall, c.f1, c.rows] for c in data.tested.classes]
    labels = data.tested.data.label_names
    matrix = zip(labels, data.tested.confusion.tolist(), strict=True)
    mistakes = data.tested.mistakes()
    keys = ["row", "text", "pair", "label", "predicted", "probability", "probability_of_label"]
    return tables | {
        "per_class.csv": csv_text([["label", "precision", "recall", "f1", "rows"], *classes]),
        "confusion.csv": csv_text(
            [["true / predicted", *labels], *([name, *counts] for name, counts in matrix)]
        ),
        "mistakes.csv": csv_text([keys, *([mistake[key] for key in keys] for mistake in mistakes)]),
    }


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV, RFC 4180 but for `\\n` between lines."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([csv_cell(value) for value in row] for row in rows)
    return out.getvalue()


def csv_cell(value: Any) -> Any:
    """A cell; an apostrophe keeps a spreadsheet from running a text as a formula (OWASP)."""
    if not isinstance(value, str):
        return value
    text = CONTROL.sub(" ", value)
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
