"""What a report needs of a sweep's folder, also of one that is unfinished or partly gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from sklearn.metrics import confusion_matrix

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.label_sets import labels_of
from lorasweep.training.errors import DataError, SettingsError, first_line
from lorasweep.training.inference.classifier import probabilities as probabilities_of
from lorasweep.training.scores.outcomes import log_softmax
from lorasweep.training.scores.scores import ClassScores, score_classes, score_labels
from lorasweep.training.scores.sets import co_occurrence
from lorasweep.tuning.record.finalists import finalists, searched_trials
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.label_check import LabelCheck, read_label_check
from lorasweep.tuning.record.predictions import winner_logits, winner_predictions, winner_sets
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.report.plots.data import PlotData, is_number, plot_data
from lorasweep.tuning.search.study import own_trials

MISTAKES = 10
NO_LABEL = "none"


@dataclass(frozen=True)
class Tested:
    """The winner's predictions on the test split.

    Attributes:
        probabilities: float64, shape (rows, classes).
        predicted: numbers of labels, by the winner's thresholds if it has some; int64, shape (rows,). Of several labels
            a text: uint8, shape (rows, classes), 1 where a text gets the label.
        confusion: rows by true class and predicted class, int64, shape (classes, classes). Of several labels a text
            those that have a label and get a label.
        mixed_up: those that get a label which they do not have, by label and by that one.
    """

    data: Dataset
    probabilities: np.ndarray
    predicted: np.ndarray
    classes: list[ClassScores]
    confusion: np.ndarray
    mixed_up: np.ndarray

    def mistakes(self) -> list[dict[str, Any]]:
        """The wrong predictions with the highest probability, the most confident first."""
        if self.data.multi_label:
            return self._set_mistakes()
        test, names, predicted = self.data.test, self.data.label_names, self.predicted
        wrong = np.flatnonzero(predicted != test.labels)
        confident = self.probabilities[wrong, predicted[wrong]]
        worst = wrong[np.argsort(-confident, kind="stable")][:MISTAKES]
        return [
            {
                "row": row,
                "text": test.text[row],
                "pair": test.pair[row] if test.pair is not None else "",
                "label": names[test.labels[row]],
                "predicted": names[predicted[row]],
                "probability": float(self.probabilities[row, predicted[row]]),
                "probability_of_label": float(self.probabilities[row, test.labels[row]]),
            }
            for row in worst.tolist()
        ]

    def _set_mistakes(self) -> list[dict[str, Any]]:
        """Texts with the most confident wrong label, given or missed; `probability` is that of being right about it."""
        test, names = self.data.test, self.data.label_names
        wrong = self.predicted != test.labels
        # What was given counts by its probability, what was missed by that of its absence.
        confident = np.where(
            wrong, np.where(self.predicted > 0, self.probabilities, 1 - self.probabilities), -1.0
        )
        worst = confident.argmax(axis=1)
        rows = np.flatnonzero(wrong.any(axis=1))
        rows = rows[np.argsort(-confident[rows, worst[rows]], kind="stable")][:MISTAKES]
        true, given = (labels_of(matrix[rows], names) for matrix in (test.labels, self.predicted))
        return [
            {
                "row": row,
                "text": test.text[row],
                "pair": test.pair[row] if test.pair is not None else "",
                "label": ", ".join(true[number]) or NO_LABEL,
                "predicted": ", ".join(given[number]) or NO_LABEL,
                "probability": float(confident[row, worst[row]]),
                "probability_of_label": float(1 - confident[row, worst[row]]),
            }
            for number, row in enumerate(rows.tolist())
        ]


@dataclass(frozen=True)
class ReportData:
    """What a report shows of a sweep.

    Attributes:
        space: setting → its domain, in words.
        labels: what `check-labels` has found, where it has run.
        missing: for each part of the folder that could not be used, why.
        searched: the space, if it is in YAML and can be read.
    """

    record: SweepRecord
    plots: PlotData
    space: list[tuple[str, str]]
    tested: Tested | None
    missing: list[str]
    searched: SearchSpace | None = None
    labels: LabelCheck | None = None

    def ranked(self) -> list[TrialRecord]:
        """All trials, the best first; those without a finite score come last, by number."""
        scored = [trial for trial in self.record.ranked() if is_number(trial.score)]
        return [*scored, *(trial for trial in self.record.trials if trial not in scored)]


def read_report_data(folder: SweepFolder) -> ReportData:
    """Read what a report needs; the folder is left as it is, and no code of a space is run.

    Raises:
        SettingsError: the sweep's own records cannot be read.
    """
    record, missing = SweepRecord(folder), list[str]()
    space = _yaml_space(record)
    kinds = space.distributions() if space else {}
    drawn = _drawn(folder, missing)
    # What a setting did is seen among trials on the same rows: of a search on a part, those that it proposed.
    last = {trial.id: trial.finalist_of for trial in finalists(record.trials)}
    winner = record.winner.id if record.winner else None
    plots = plot_data(
        searched_trials(record.trials), record.metric, last.get(winner or "", winner), drawn, kinds
    )
    tested = _tested(record, missing)
    if tested is not None:
        plots = replace(plots, confusion=tested.confusion, label_names=tested.data.label_names)
        if tested.data.multi_label:
            plots = replace(plots, label_rows=tested.data.test.labels.sum(axis=0, dtype=np.int64))
    labels = _label_check(record, missing)
    domains = space.describe() if space else plots.domains
    return ReportData(record, plots, domains, tested, missing, space, labels)


def _yaml_space(record: SweepRecord) -> SearchSpace | None:
    try:
        text = (record.folder.path / "space.yaml").read_text(encoding="utf-8")
        return SearchSpace.from_yaml(text, Path(record.config.search.space).stem)
    except (OSError, UnicodeDecodeError, SettingsError):
        return None


def _drawn(folder: SweepFolder, missing: list[str]) -> dict[int, FrozenTrial]:
    """Number → trial in the sweep's study; none, and a line in `missing`, where it cannot be read."""
    path = folder.path / "study.db"
    try:
        # Opened for reading alone: a report must not make or mend a database, least of all a running sweep's.
        # Escaped for SQLite, which takes this as a URI of its own, and again for SQLAlchemy.
        url = f"sqlite:///file:{quote(quote(str(path.resolve())))}?mode=ro&uri=true"
        storage = optuna.storages.RDBStorage(url, skip_table_creation=True)
        try:
            return own_trials(optuna.load_study(study_name=folder.name, storage=storage))
        finally:
            storage.engine.dispose()
    # A missing, broken or foreign database raises errors of several libraries; the records tell nearly as much.
    except Exception as error:
        missing.append(
            f"Optuna's study (study.db) could not be read ({type(error).__name__}); settings are taken from "
            "the trials' records"
        )
        return {}


def _label_check(record: SweepRecord, missing: list[str]) -> LabelCheck | None:
    """What a check of the training labels has found; None, and a line in `missing`, where it cannot be read."""
    if not record.folder.label_check.is_dir():
        return None
    try:
        return read_label_check(record.folder, Dataset.load(record.folder.data))
    except (DataError, SettingsError) as error:
        missing.append(f"the check of the training labels could not be read ({first_line(error)})")
        return None


def _tested(record: SweepRecord, missing: list[str]) -> Tested | None:
    """The winner's predictions with their rows; None, and a line in `missing`, where they do not fit."""
    if record.winner is None:
        return None
    try:
        data = Dataset.load(record.folder.data)
    except DataError:
        missing.append("the prepared rows are gone: no scores by class, no mistakes")
        return None
    logits = winner_logits(record.folder, data, record.winner)
    if isinstance(logits, str):
        missing.append(logits)
        return None
    labels, names = data.test.labels, data.label_names
    if data.multi_label:
        given = winner_sets(logits, data, record.winner)
        return Tested(
            data,
            probabilities_of(logits, multi_label=True),
            given,
            score_labels(given, labels, names),
            co_occurrence(labels, given),
            co_occurrence(labels, given & ~labels),
        )
    probabilities = np.exp(log_softmax(logits))
    predicted = winner_predictions(probabilities, data, record.winner)
    confusion = confusion_matrix(labels, predicted, labels=range(len(names)))
    return Tested(
        data, probabilities, predicted, score_classes(predicted, labels, names), confusion, confusion
    )
