"""Texts labelled in memory: a DataFrame for programs, a table for the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorasweep.training.data.columns import as_text, find_text, texts_and_pairs
from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files import tables
from lorasweep.training.files.cells import mended
from lorasweep.training.files.formats import TEXT, read_text
from lorasweep.training.files.tables import SCAN_ROWS, RowStream
from lorasweep.training.files.unpacked import standard_input
from lorasweep.training.inference.classifier import Classifier, predict
from lorasweep.training.inference.classifier import probabilities as probabilities_of
from lorasweep.training.settings import Precision

log = logging.getLogger("lorasweep")

NO_LABEL = "-"
"""In place of the labels of a text that gets none."""


def predict_frame(
    classifier: Classifier,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    probabilities: bool = False,
    precision: Precision = "fp32",
) -> pd.DataFrame:
    """Label texts.

    Args:
        pairs: the second text of each row, for a classifier that was trained on pairs.
        probabilities: add a column `p_<label>` for each label.

    Returns:
        A row for each text: `text`, `pair` where pairs are given, `label`, and `score`, the label's probability. Of a
        classifier of several labels a text `label` is a list, the most probable label first, and `score` that of
        their probabilities.

    Raises:
        ModelError: two texts a row for a classifier of one.
        SettingsError: a precision that the device does not have.
    """
    logits = predict(classifier, texts, pairs, precision)
    shares = probabilities_of(logits, classifier.multi_label)
    labels, scores = (_sets if classifier.multi_label else _best)(classifier, logits, shares)
    columns = {
        "text": list(map(mended, texts)),
        "pair": list(map(mended, pairs or ())),
        "label": labels,
        "score": scores,
    }
    if pairs is None:
        del columns["pair"]
    if probabilities:
        columns |= {f"p_{label}": shares[:, number] for number, label in enumerate(classifier.label_names)}
    return pd.DataFrame(columns)


def _best(classifier: Classifier, logits: np.ndarray, shares: np.ndarray) -> tuple[Any, Any]:
    chosen = classifier.decide(shares)
    return [classifier.label_names[number] for number in chosen], shares[np.arange(len(shares)), chosen]


def _sets(classifier: Classifier, logits: np.ndarray, shares: np.ndarray) -> tuple[Any, Any]:
    """The labels of each row and their probabilities, the most probable first."""
    labels, scores = [], []
    for row, given in zip(shares, classifier.predicted_sets(logits), strict=True):
        chosen = sorted(np.flatnonzero(given).tolist(), key=lambda number: -row[number])
        labels.append([classifier.label_names[number] for number in chosen])
        scores.append([float(row[number]) for number in chosen])
    return labels, scores


def as_texts(values: Iterable[Any]) -> list[str]:
    """Texts of a list, an array or a column of a table, as those of a file are read; what is missing becomes "".

    Raises:
        SettingsError: a single text.
        DataError: a value that is no text, such as a list.
    """
    if isinstance(values, str):
        raise SettingsError("texts: a single text is given; put it into a list")
    table = tables.Table(pd.DataFrame(), "texts")
    return [as_text(value, table, "text", row) for row, value in enumerate(values, start=1)]


def warn_of_gaps(classifier: Classifier, texts: Sequence[str], pairs: Sequence[str] | None = None) -> None:
    """Warn of empty texts, and of one text a row for a classifier of two: it labels them all the same."""
    empty = sum(not text.strip() for text in texts)
    if pairs is not None:
        empty = sum(not (text.strip() or pair.strip()) for text, pair in zip(texts, pairs, strict=False))
    if empty:
        texts_are = "text is" if len(texts) == 1 else "texts are" if empty > 1 else "texts is"
        labels_mean = "their labels mean" if empty > 1 else "its label means"
        log.warning("%d of %d %s empty: %s nothing", empty, len(texts), texts_are, labels_mean)
    if texts and pairs is None:
        warn_of_one_text(classifier)


def warn_of_one_text(classifier: Classifier, given: int = 1) -> None:
    """Warn of fewer texts a row than the classifier was trained on."""
    if given < len(classifier.text_columns):
        log.warning(
            "the adapter reads %s, and one text is given: the other is empty",
            " + ".join(classifier.text_columns),
        )


def text_columns(rows: RowStream, classifier: Classifier, named: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns to read: those named, else those the classifier was trained on, else usual ones.

    Raises `DataError` for columns that are not there, `SettingsError` for more than two.
    """
    # A text file has but one column, whatever those of the training data were called.
    names = ("text",) if rows.source.suffix == TEXT else tuple(named) or classifier.text_columns
    return find_text(rows.heading(), names)


def read_inputs(
    classifier: Classifier, texts: list[str], rows: RowStream | None, named: Sequence[str] = ()
) -> tuple[list[str], list[str] | None]:
    """Texts as given, from a file, or one a line from standard input (`-`, or a pipe and nothing else).

    Args:
        named: the text columns of the file; those the classifier was trained on if left out.

    Returns:
        The texts, and for two columns the second text of each row.

    Raises:
        SettingsError: texts and a file, or neither.
        DataError: the file lacks the columns or holds no text, or standard input is not UTF-8.
    """
    if rows is not None:
        if texts:
            raise SettingsError("predict: give texts or --file, not both")
        columns = text_columns(rows, classifier, named)
        parts = [texts_and_pairs(table, columns) for table in rows.chunks()]
        texts = [text for part, _ in parts for text in part]
        if not any(texts):
            raise no_text(rows, columns)
        return texts, [pair for _, part in parts for pair in part or ()] if len(columns) == 2 else None
    if texts == ["-"] or (not texts and sys.stdin is not None and not sys.stdin.isatty()):
        return [line for frame in read_text(standard_input(), SCAN_ROWS) for line in frame["text"]], None
    if not texts:
        raise SettingsError(
            'predict: no texts; give them as arguments, with --file, or with "-" from standard input'
        )
    return texts, None


def no_text(rows: RowStream, columns: Sequence[str]) -> DataError:
    """The refusal of a file without a text."""
    return DataError(
        f"{rows.source.name}: {shown(columns)} is empty in every row; name other columns with --text"
    )


def print_predictions(predictions: pd.DataFrame, console: Console) -> None:
    """Print one line for each row of a `predict_frame`: its label, the label's probability, and its text."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("label", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("text", overflow="ellipsis", no_wrap=True)
    for row in predictions.to_dict("records"):
        several = isinstance(row["label"], list)
        labels, scores = (row["label"], row["score"]) if several else ([row["label"]], [row["score"]])
        shown = ", ".join(f"{score:.1%}" for score in scores)
        table.add_row(escape(", ".join(labels) or NO_LABEL), shown, escape(" ".join(row["text"].split())))
    console.print(table)
