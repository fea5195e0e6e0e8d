"""Texts from arguments, a file or standard input, and their labels as a table or JSON lines."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorasweep.training.data.load import read_texts
from lorasweep.training.errors import SettingsError
from lorasweep.training.inference.classifier import Classifier, labels_and_scores, predict


@dataclass(frozen=True)
class Inputs:
    """Rows to label; `pair` is None for single texts."""

    text: list[str]
    pair: list[str] | None = None


def read_inputs(
    classifier: Classifier, texts: list[str], file: Path | None, text_columns: list[str], columns: list[str]
) -> Inputs:
    """Texts as given, from a file, or one a line from standard input (`-`, or a pipe and nothing else).

    Raises:
        SettingsError: texts and a file, or neither.
        DataError: the file cannot be read, or lacks the columns.
    """
    if file is not None:
        if texts:
            raise SettingsError("predict: give texts or --file, not both")
        names = tuple(text_columns) or classifier.text_columns
        text, pair, _ = read_texts(file, names, tuple(columns))
        return Inputs(text, pair)
    if texts == ["-"] or (not texts and not sys.stdin.isatty()):
        lines = sys.stdin.buffer.read().decode("utf-8", errors="replace").splitlines()
        return Inputs([line for line in lines if line.strip()])
    if not texts:
        raise SettingsError(
            'predict: no texts; give them as arguments, with --file, or with "-" from standard input'
        )
    return Inputs(texts)


def print_predictions(classifier: Classifier, inputs: Inputs, console: Console, as_json: bool) -> None:
    """Label the rows and print one line a row: text, label, and the label's probability."""
    predictions = labels_and_scores(predict(classifier, inputs.text, inputs.pair), classifier.label_names)
    pairs: list[str | None] = [*inputs.pair] if inputs.pair else [None] * len(inputs.text)
    if as_json:
        for text, pair, (label, score) in zip(inputs.text, pairs, predictions, strict=True):
            entry = (
                {"text": text}
                | ({"pair": pair} if pair is not None else {})
                | {"label": label, "score": score}
            )
            typer.echo(json.dumps(entry, ensure_ascii=False))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("label", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("text", overflow="ellipsis", no_wrap=True)
    for text, (label, score) in zip(inputs.text, predictions, strict=True):
        table.add_row(escape(label), f"{score:.1%}", escape(" ".join(text.split())))
    console.print(table)
