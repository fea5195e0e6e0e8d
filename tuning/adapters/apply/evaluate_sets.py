"""Labelled rows of several labels a text: which columns hold them, and what they are compared with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorasweep.training.data.columns import find_labels
from lorasweep.training.data.label_sets import SEPARATOR, SetForm, find_form, read_sets, set_of
from lorasweep.training.data.labels import known_labels
from lorasweep.training.errors import DataError
from lorasweep.training.files.tables import Table
from lorasweep.training.inference.classifier import Classifier, predict, probabilities
from lorasweep.training.scores.calibration import confidence_bins, expected_calibration_error
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.scores import score_labels
from lorasweep.training.scores.set_thresholds import ONE_HALF
from lorasweep.training.scores.sets import co_occurrence


@dataclass(frozen=True)
class LabelSets:
    """The labels of a table's rows.

    Attributes:
        columns: that hold them.
        known: whether a row's labels are known; bool, shape (rows,).
        matrix: 1 where a row has a label that the classifier knows; uint8, shape (rows, labels).
        unknown: label that the classifier does not know → rows that have it.
    """

    columns: tuple[str, ...]
    known: np.ndarray
    matrix: np.ndarray
    unknown: Counter[str]


def read_label_sets(
    table: Table,
    classifier: Classifier,
    label: tuple[str, ...],
    separator: str | None,
    taken: tuple[str, ...],
) -> LabelSets:
    """The labels of a table as a classifier of several labels a text knows them.

    A column of plain fields is cut at the separator of the training data. Without named columns, one for each of the
    classifier's labels is taken, if they are all there.

    Args:
        label: the label columns; found if left out.
        separator: between the labels of a field; the training data's if None.
        taken: the text columns.

    Raises:
        DataError: a column is missing, or a value is of another form.
        SettingsError: a separator where there is nothing to separate.
    """
    names = classifier.label_names
    if not label and len(names) > 1 and all(name in table.frame for name in names):
        label = names
    columns = find_labels(table, label, taken)
    form = find_form(table, columns, separator)
    sets = read_sets(table, form or SetForm(columns, classifier.label_separator or SEPARATOR))
    found = {text: set_of(text) for text in set(sets) if text}
    names_of = known_labels({name for labels in found.values() for name in labels}, names)
    counts = Counter(text for text in sets if text)
    unknown: Counter[str] = Counter()
    for text, labels in found.items():
        unknown.update({name: counts[text] for name in labels if name not in names_of})
    if found and unknown and not names_of:
        raise DataError(
            f"{table.name}: column {columns[0]!r} holds no label that the adapter knows: it holds "
            f"{', '.join(map(repr, list(unknown)[:8]))}, the adapter knows {', '.join(map(repr, names[:8]))}; name "
            "another column with --label"
        )
    known = np.array([bool(text) for text in sets])
    matrix = np.zeros((len(sets), len(names)), dtype=np.uint8)
    renamed = {
        text: [names_of[name] for name in labels if name in names_of] for text, labels in found.items()
    }
    index = {name: number for number, name in enumerate(names)}
    for row, text in enumerate(sets):
        if text:
            matrix[row, [index[name] for name in renamed[text]]] = 1
    return LabelSets(columns, known, matrix, unknown)


def score_sets(
    classifier: Classifier,
    table: Table,
    texts: list[str],
    pairs: list[str] | None,
    label_sets: LabelSets,
) -> dict[str, Any]:
    """Predict the rows with a text and known labels in fp32, and score them; fields of a `FileEvaluation`.

    Raises:
        DataError: there is no such row.
    """
    filled = np.array([bool(text) for text in texts])
    rows = np.flatnonzero(filled & label_sets.known)
    if not len(rows):
        raise DataError(
            f"{table.name}: no row has both a text and known labels ({', '.join(label_sets.columns[:4])}); name other "
            "columns with --text and --label"
        )
    logits = predict(
        classifier, [texts[row] for row in rows], [pairs[row] for row in rows] if pairs is not None else None
    )
    matrix, predicted = label_sets.matrix[rows], classifier.predicted_sets(logits)
    scorer = Scorer(classifier.label_names, several=True)
    as_rows = _pairs_of(probabilities(logits, multi_label=True), matrix)
    dropped = {
        "not a JSON object": table.unparsable,
        "no text": int((~filled).sum()),
        "no label": int((filled & ~label_sets.known).sum()),
    }
    return {
        "label_column": ", ".join(label_sets.columns),
        "rows": len(rows),
        "scores": scorer.scores(scorer.outcomes(logits, matrix, predicted)),
        "classes": score_labels(predicted, matrix, classifier.label_names),
        "calibration_error": expected_calibration_error(*as_rows),
        "bins": confidence_bins(*as_rows),
        "confusion": co_occurrence(matrix, predicted),
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "unknown_labels": dict(label_sets.unknown.most_common()),
        "multi_label": True,
        "thresholds": {name: classifier.thresholds.get(name, ONE_HALF) for name in classifier.label_names},
    }


def _pairs_of(shares: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each text and label as a row of two classes, for calibration.

    Args:
        shares: probabilities of the labels; float, shape (rows, labels).
        matrix: uint8, of the same shape.
    """
    flat = shares.ravel()
    return np.stack([1 - flat, flat], axis=1), matrix.ravel().astype(np.int64)
