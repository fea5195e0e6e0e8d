"""A file of any size labelled: its own columns and the predictions, chunk by chunk."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from lorasweep.training.data.columns import texts_and_pairs
from lorasweep.training.data.label_sets import SEPARATOR
from lorasweep.training.errors import DataError, ExportError, SettingsError, counted, shown
from lorasweep.training.files.cells import Write
from lorasweep.training.files.formats import FORMATS
from lorasweep.training.files.tables import CHUNK_ROWS, RowStream
from lorasweep.training.inference.classifier import Classifier
from lorasweep.training.settings import Precision
from lorasweep.tuning.adapters.apply.predict import no_text, predict_frame, text_columns, warn_of_one_text
from lorasweep.tuning.adapters.export.staging import staged_file

COLLISION_PREFIX = "predicted_"
OUTPUTS = tuple(suffix for suffix, entry in FORMATS.items() if entry.write is not None)


@dataclass(frozen=True)
class FilePredictions:
    """What was written.

    Attributes:
        out: the file.
        rows: as many as the input has.
        empty: rows without a text, whose label is empty.
        labels: rows of each predicted label, the most frequent first; a row may count for several.
        columns: the columns that were added.
        seconds: from the first chunk read to the last written.
    """

    out: Path
    rows: int
    empty: int
    labels: dict[str, int]
    columns: tuple[str, ...]
    seconds: float

    def text(self) -> str:
        """A summary for the terminal."""
        # A label may be a number itself.
        shares = ", ".join(
            f"{label} ({counted(rows, 'row')})" for label, rows in list(self.labels.items())[:5]
        )
        more = f" and {counted(len(self.labels) - 5, 'more label')}" if len(self.labels) > 5 else ""
        empty = f"; {self.empty:,} without a text have no label" if self.empty else ""
        rate = self.rows / self.seconds if self.seconds else 0.0
        return f"{self.out}: {counted(self.rows, 'row')} ({rate:,.0f} a second){empty}\n{shares}{more}"


def check_output(out: Path) -> None:
    """Refuse a place that cannot be written to, before any work is done.

    Raises:
        SettingsError: a suffix that is none of `OUTPUTS`.
        ExportError: something is there already.
    """
    if out.suffix.lower() not in OUTPUTS:
        raise SettingsError(
            f"--out {out}: the format is told by the suffix, and {out.suffix or 'none'!r} is not one of "
            f"{', '.join(OUTPUTS)}; choose another name"
        )
    if os.path.lexists(out):
        raise ExportError(f"--out {out}: exists already; remove it or choose another name")


def predict_file(
    classifier: Classifier,
    rows: RowStream,
    out: Path,
    *,
    text: Sequence[str] = (),
    all_probabilities: bool = False,
    precision: Precision = "fp32",
    chunk_rows: int = CHUNK_ROWS,
    console: Console | None = None,
) -> FilePredictions:
    """Label every row of a file.

    Memory holds one chunk, whatever the file's size. In a chunk rows of similar length share a batch.

    Args:
        rows: the file, opened with `lorasweep.training.files.tables.open_table`.
        out: .csv, .tsv, .jsonl or .parquet; must not exist, and appears whole or not at all.
        text: the text columns; those the classifier was trained on if left out.
        all_probabilities: also a column `p_<label>` for each label.
        precision: bf16 takes half of fp32's time on a CPU that has it, and gave 9 of 4,000 news another label.
        console: where the progress is shown, if it is a terminal; standard error if left out.

    Raises:
        DataError: columns that are not there, no text in any row, or a file that has changed meanwhile.
        SettingsError: a suffix of `out` that is not supported, or a precision that the device does not have.
        ExportError: `out` exists or cannot be written.
        ModelError: two texts a row for a classifier of one.
    """
    check_output(out)
    names = text_columns(rows, classifier, text)
    warn_of_one_text(classifier, len(names))
    added = added_columns(rows.columns, classifier.label_names, all_probabilities, _set_type(classifier, out))
    counts: Counter[str] = Counter()
    separator, filled = _separator(classifier, out), 0
    started = time.perf_counter()
    console = console or Console(stderr=True)
    bar = Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with (
        staged_file(out) as stage,
        bar as progress,
        open_writer(stage, out.suffix.lower(), rows, added) as write,
    ):
        task = progress.add_task("predicting rows", total=rows.rows)
        for table in rows.chunks(chunk_rows):
            texts, pairs = texts_and_pairs(table, names)
            predictions = _predict(classifier, texts, pairs, all_probabilities, precision)
            for given in predictions[0]:
                if given is not None:
                    filled += 1
                    counts.update(given if classifier.multi_label else [given])
            predictions[:2] = [[_cell(value, separator) for value in column] for column in predictions[:2]]
            write([*(column.tolist() for _, column in table.frame.items()), *predictions])
            progress.advance(task, len(texts))
        if not filled:
            raise no_text(rows, names)
    return FilePredictions(
        out=out,
        rows=rows.rows,
        empty=rows.rows - filled,
        labels=dict(counts.most_common()),
        columns=tuple(name for name, _ in added),
        seconds=time.perf_counter() - started,
    )


def open_writer(
    file: Path, suffix: str, rows: RowStream, added: Sequence[tuple[str, pa.DataType]]
) -> AbstractContextManager[Write]:
    """A writer of the rows' own columns and further ones.

    Args:
        suffix: one of `OUTPUTS`.
        added: name and type of each further column.

    Raises:
        DataError: two columns of one name, for JSON lines and Parquet.
    """
    names = [*rows.columns, *(name for name, _ in added)]
    output = FORMATS[suffix]
    assert output.write is not None
    if len(set(names)) < len(names) and not output.has_header_line:
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(
            f"{rows.source.name} has two columns {shown(twice)}; write a .csv, or rename one of them"
        )
    return output.write(file, names, [*rows.types, *(kind for _, kind in added)])


def _separator(classifier: Classifier, out: Path) -> str:
    """What joins the labels of a text in one field; empty for lists, as JSON and Parquet have them.

    A field holds a JSON list where a label holds the separator itself.
    """
    if not classifier.multi_label or not FORMATS[out.suffix.lower()].is_delimited:
        return ""
    separator = classifier.label_separator or SEPARATOR
    return "" if any(separator in name for name in classifier.label_names) else separator


def _set_type(classifier: Classifier, out: Path) -> bool:
    """Whether labels and scores are columns of lists."""
    return classifier.multi_label and not FORMATS[out.suffix.lower()].is_delimited


def _cell(value: Any, separator: str) -> Any:
    return separator.join(map(str, value)) if separator and isinstance(value, list) else value


def added_columns(
    taken: tuple[str, ...], label_names: tuple[str, ...], all_probabilities: bool, lists: bool = False
) -> list[tuple[str, pa.DataType]]:
    """Name and type of the columns that predictions add; one that the input has already gets a prefix.

    Args:
        lists: a text has a list of labels and of scores.
    """
    added: dict[str, pa.DataType] = {}
    for name in ["label", "score", *(f"p_{label}" for label in label_names if all_probabilities)]:
        while name in taken or name in added:
            name = COLLISION_PREFIX + name
        kind = pa.float64() if added else pa.string()
        added[name] = pa.list_(kind) if lists and len(added) < 2 else kind
    return list(added.items())


def _predict(
    classifier: Classifier,
    texts: list[str],
    pairs: list[str] | None,
    all_probabilities: bool,
    precision: Precision,
) -> list[list[Any]]:
    """The added columns of a chunk; None for rows without a text."""
    predictions = predict_frame(
        classifier, texts, pairs, probabilities=all_probabilities, precision=precision
    )
    filled = np.array([bool(text) for text in texts])
    # Six digits are more than fp32 logits are good for, and keep files small.
    names = predictions.loc[:, "score":].columns
    numbers = [
        predictions[name].map(lambda values: [float(f"{value:.6g}") for value in values])
        if classifier.multi_label and name == "score"
        else predictions[name].map("{:.6g}".format).astype(float)
        for name in names
    ]
    return [column.astype(object).where(filled, None).tolist() for column in (predictions["label"], *numbers)]
