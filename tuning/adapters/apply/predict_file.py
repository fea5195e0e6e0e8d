"""A file of any size labelled: its own columns and the predictions, chunk by chunk."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lorasweep.training.data.columns import find_text, texts_and_pairs
from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.row_stream import CHUNK_ROWS
from lorasweep.training.files.streams import open_table
from lorasweep.training.files.unpacked import table_format
from lorasweep.training.inference.classifier import Classifier, predict, probabilities
from lorasweep.training.settings import Precision
from lorasweep.tuning.adapters.apply.prediction_files import check_output, open_writer
from lorasweep.tuning.adapters.export.staging import staged_file

COLLISION_PREFIX = "predicted_"


@dataclass(frozen=True)
class FilePredictions:
    """What was written.

    Attributes:
        out: the file.
        rows: as many as the input has.
        empty: rows without a text, whose label is empty.
        labels: rows of each predicted label, the most frequent first.
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
        """What to tell the user."""
        shares = ", ".join(f"{label} {rows:,}" for label, rows in list(self.labels.items())[:5])
        more = f" and {len(self.labels) - 5} more labels" if len(self.labels) > 5 else ""
        empty = f"; {self.empty:,} without a text have no label" if self.empty else ""
        rate = self.rows / self.seconds if self.seconds else 0.0
        return f"{self.out}: {self.rows:,} rows ({rate:,.0f} a second){empty}\n{shares}{more}"


def predict_file(
    classifier: Classifier,
    file: Path,
    out: Path,
    *,
    text: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    all_probabilities: bool = False,
    precision: Precision = "fp32",
    chunk_rows: int = CHUNK_ROWS,
    console: Console | None = None,
) -> FilePredictions:
    """Label every row of a file.

    Memory holds one chunk, whatever the file's size. In a chunk rows of similar length share a batch.

    Args:
        file: JSON lines, CSV, TSV (each also .gz or .xz) or Parquet, read in chunks; what else
            `lorasweep.training.files.streams.open_table` takes is read whole.
        out: .csv, .tsv, .jsonl or .parquet; must not exist, and appears whole or not at all.
        text: the text columns; those the classifier was trained on if left out.
        columns: names for a CSV or TSV without a header line.
        all_probabilities: also a column `p_<label>` for each label.
        precision: bf16 takes half of fp32's time on a CPU that has it, and gave 9 of 4,000 news another label.
        console: where the progress is shown, if it is a terminal; standard error if left out.

    Raises:
        DataError: a file that cannot be read, columns that are not there, no text in any row.
        SettingsError: a suffix of `out` that is not known, or a precision that the device has not.
        ExportError: `out` exists or cannot be written.
        ModelError: two texts a row for a classifier of one.
    """
    check_output(out)
    stream = open_table(file, columns)
    # A text file has but one column, whatever those of the training data were called.
    wanted = ("text",) if table_format(file) == ".txt" else text or classifier.text_columns
    names = find_text(stream.heading(), wanted)
    added = added_columns(stream.columns, classifier.label_names, all_probabilities)
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    with (
        staged_file(out) as stage,
        _progress(console) as progress,
    ):
        task = progress.add_task("predicting", total=stream.rows)
        writer = open_writer(stage, out.suffix.lower(), stream, added)
        try:
            for table in stream.chunks(chunk_rows):
                texts, pairs = texts_and_pairs(table, names)
                predictions = _predict(classifier, texts, pairs, all_probabilities, precision)
                writer.write(table.frame, predictions)
                counts.update(label for label in predictions[0] if label is not None)
                progress.advance(task, len(texts))
        finally:
            writer.close()
        labelled = counts.total()
        if not labelled:
            raise DataError(
                f"{stream.name}: {shown(names)} is empty in every row; name other columns with --text"
            )
    return FilePredictions(
        out=out,
        rows=stream.rows,
        empty=stream.rows - labelled,
        labels=dict(counts.most_common()),
        columns=tuple(name for name, _ in added),
        seconds=time.perf_counter() - started,
    )


def added_columns(
    taken: tuple[str, ...], label_names: tuple[str, ...], all_probabilities: bool
) -> list[tuple[str, pa.DataType]]:
    """Name and type of the columns that predictions add; one that the input has already gets a prefix."""
    found: list[tuple[str, pa.DataType]] = []
    names = ["label", "score", *(f"p_{label}" for label in label_names if all_probabilities)]
    for number, name in enumerate(names):
        while name in taken or name in (other for other, _ in found):
            name = COLLISION_PREFIX + name
        found.append((name, pa.string() if number == 0 else pa.float64()))
    return found


def _predict(
    classifier: Classifier,
    texts: list[str],
    pairs: list[str] | None,
    all_probabilities: bool,
    precision: Precision,
) -> list[list[Any]]:
    """The added columns of a chunk; None for rows without a text."""
    rows = [row for row, text in enumerate(texts) if text]
    logits = predict(
        classifier,
        [texts[row] for row in rows],
        [pairs[row] for row in rows] if pairs is not None else None,
        precision,
    )
    shares = probabilities(logits)
    labels = [classifier.label_names[index] for index in logits.argmax(axis=1)]
    numbers = [shares.max(axis=1), *(shares.T if all_probabilities else ())]
    # Six digits are more than fp32 logits are good for, and keep files small.
    found: list[list[Any]] = [labels, *([float(f"{value:.6g}") for value in column] for column in numbers)]
    added: list[list[Any]] = [[None] * len(texts) for _ in found]
    for whole, part in zip(added, found, strict=True):
        for row, value in zip(rows, part, strict=True):
            whole[row] = value
    return added


def _progress(console: Console | None) -> Progress:
    console = console or Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
