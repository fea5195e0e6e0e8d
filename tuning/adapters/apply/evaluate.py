"""An exported adapter scored on labelled rows: for the terminal, and for programs."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lorasweep.training.data.columns import find_label, find_text, strings, texts_and_pairs
from lorasweep.training.data.labels import known_labels
from lorasweep.training.data.splits import TEST
from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files.tables import table_of
from lorasweep.training.files.whole_tables import WHOLE, read_tables
from lorasweep.training.inference.classifier import Classifier, predict, probabilities
from lorasweep.training.scores.calibration import (
    ConfidenceBin,
    confidence_bins,
    expected_calibration_error,
)
from lorasweep.training.scores.scorer import Scorer, Scores
from lorasweep.training.scores.scores import ClassScores, score_classes
from lorasweep.tuning.adapters.apply.evaluate_sets import read_label_sets, score_sets

log = logging.getLogger("lorasweep")


@dataclass(frozen=True)
class FileEvaluation:
    """Scores of a classifier on labelled rows.

    Attributes:
        adapter: the folder, as given.
        data: the file, as given, or "DataFrame".
        text_columns: one, or two read as a pair.
        label_names: in the order of the logits.
        rows: rows that were scored.
        classes: precision, recall, F1 and rows of each label, in the same order.
        calibration_error: expected calibration error, in [0, 1].
        bins: the bins that it was computed from.
        confusion: rows by true (first axis) and predicted label; int64, shape (classes, classes).
        dropped: reason → rows without a text or a label, or that are not JSON objects.
        thresholds: label → probability from which on it is predicted; empty for the most probable label.
        unknown_labels: label that the adapter does not know → its rows, which were not scored. Of several labels a
            text the rows were scored without it.
        multi_label: whether a text may have several labels. The confusion then holds the texts that have a label (first
            axis) and are given one.
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
    thresholds: dict[str, float] = field(default_factory=dict)
    multi_label: bool = False

    def confusions(self) -> list[tuple[str, str, int]]:
        """True label, predicted label and rows of each confusion that occurs, the most frequent first."""
        wrong = self.confusion * (1 - np.eye(len(self.confusion), dtype=np.int64))
        names = self.label_names
        pairs = [(names[t], names[g], int(wrong[t, g])) for t, g in np.argwhere(wrong).tolist()]
        return sorted(pairs, key=lambda pair: -pair[2])


def evaluate_file(
    classifier: Classifier,
    data: Path | pd.DataFrame,
    *,
    adapter: Path,
    text: tuple[str, ...] = (),
    label: str | tuple[str, ...] | None = None,
    label_separator: str | None = None,
    columns: tuple[str, ...] = (),
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> FileEvaluation:
    """Predict labelled rows in fp32 and compare with their labels.

    Args:
        data: rows in memory, or a file: JSON lines, a JSON array, CSV, TSV or Parquet, plain or packed.
        adapter: the classifier's folder, for the record.
        text: the text columns; those the classifier was trained on if left out.
        label: the label column; recognised if left out. Several columns of 0 and 1 for several labels a text.
        label_separator: between several labels in a field; that of the training data if left out.
        columns: names for a CSV or TSV without a header line.
        delimiter: what separates the columns of a CSV or TSV, if not the suffix's comma or tab.
        encoding: of the file's text; found out if left out.
        sheet: of a workbook that has several.

    Raises:
        DataError: a file that cannot be read, missing columns, no rows, no label that the classifier knows.
        SettingsError: one column for text and label, or `columns`, `delimiter`, `encoding` or `sheet` for a DataFrame.
        ModelError: two texts a row for a classifier of one.
    """
    if isinstance(data, pd.DataFrame) and columns:
        raise SettingsError(f"columns {shown(columns)}: columns name those of a file; rename the DataFrame's")
    if isinstance(data, pd.DataFrame) and delimiter is not None:
        raise SettingsError(f"delimiter {delimiter!r}: a DataFrame has none; leave it out")
    if isinstance(data, pd.DataFrame) and encoding is not None:
        raise SettingsError(f"encoding {encoding!r}: a DataFrame has none; leave it out")
    if isinstance(data, pd.DataFrame) and sheet is not None:
        raise SettingsError(f"sheet {sheet!r}: a DataFrame has none; leave it out")
    if isinstance(data, pd.DataFrame):
        table = table_of(data)
        name = table.name
    else:
        tables = read_tables(data, columns, delimiter=delimiter, encoding=encoding, sheet=sheet)
        split = WHOLE if WHOLE in tables else TEST
        if split not in tables:
            raise DataError(
                f"{data} holds the splits {', '.join(tables)}, and no test rows to score; add them"
            )
        table = tables[split]
        name = str(data) if split == WHOLE else table.name
        for note in table.notes:
            log.warning("%s", note)
    given = (label,) if isinstance(label, str) else tuple(label or ())
    names = find_text(table, text or classifier.text_columns, taken=given)
    if classifier.multi_label:
        sets = read_label_sets(table, classifier, given, label_separator, names)
        scored_sets = score_sets(classifier, table, *texts_and_pairs(table, names), sets)
        return FileEvaluation(
            adapter=str(adapter),
            data=name,
            text_columns=names,
            label_names=classifier.label_names,
            **scored_sets,
        )
    if len(given) > 1 or label_separator is not None:
        raise SettingsError(
            f"{adapter} gives one label a text; name one column with --label, and leave out --label-separator"
        )
    label_column = find_label(table, given[0] if given else None, taken=names)
    if label_column in names:
        raise SettingsError(
            f"--text {shown(names)}, --label {label_column!r} name a column twice; name a different one for each"
        )
    texts, pairs = texts_and_pairs(table, names)
    labels = strings(table, label_column, "--label")
    index = {name: number for number, name in enumerate(classifier.label_names)}
    names_of = known_labels(set(labels), classifier.label_names)
    labels = [names_of.get(name, name) for name in labels]
    complete = [row for row, text in enumerate(texts) if text and labels[row]]
    scored = [row for row in complete if labels[row] in index]
    unknown = Counter(labels[row] for row in complete if labels[row] not in index)
    if not complete:
        raise DataError(
            f"{table.name}: no row has both a text ({shown(names)}) and a label ({label_column!r}); "
            "name other columns with --text and --label"
        )
    if not scored:
        raise DataError(
            f"{table.name}: column {label_column!r} holds no label that {adapter} knows: it holds "
            f"{shown([name for name, _ in unknown.most_common()], 8)}, the adapter knows "
            f"{shown(classifier.label_names, 8)}; name another column with --label"
        )
    logits = predict(
        classifier,
        [texts[row] for row in scored],
        [pairs[row] for row in scored] if pairs is not None else None,
    )
    truth = np.array([index[labels[row]] for row in scored], dtype=np.int64)
    shares = probabilities(logits)
    classes, predicted = len(index), classifier.decide(shares)
    confusion = np.bincount(truth * classes + predicted, minlength=classes * classes)
    scorer = Scorer.of(classifier.label_names, classifier.positive)
    dropped = {
        "not a JSON object": table.unparsable,
        "no text": sum(not text for text in texts),
        "no label": sum(bool(text) and not labels[row] for row, text in enumerate(texts)),
    }
    return FileEvaluation(
        adapter=str(adapter),
        data=name,
        text_columns=names,
        label_column=label_column,
        label_names=classifier.label_names,
        rows=len(scored),
        scores=scorer.scores(scorer.outcomes(logits, truth, predicted)),
        classes=score_classes(predicted, truth, classifier.label_names),
        calibration_error=expected_calibration_error(shares, truth),
        bins=confidence_bins(shares, truth),
        confusion=confusion.reshape(classes, classes).astype(np.int64),
        dropped={reason: rows for reason, rows in dropped.items() if rows},
        unknown_labels=dict(unknown.most_common()),
        thresholds=classifier.thresholds,
    )


def evaluation_entries(evaluation: FileEvaluation) -> dict[str, Any]:
    """All scores, for `--json`; other programs may rely on the names."""
    entries = asdict(evaluation)
    entries["confusion"] = evaluation.confusion.tolist()
    entries["confidence_bins"] = entries.pop("bins")
    scores = entries.pop("scores")
    entries |= scores.pop("more") | scores
    return entries
