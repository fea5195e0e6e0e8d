"""What a report needs of a sweep's folder, also of one that is unfinished or partly gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from lorasweep.search_spaces.domains import from_distribution
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.errors import DataError, SettingsError
from lorasweep.training.scores.scores import ClassScores, log_softmax, score_classes
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, SweepResult, TrialRecord, rank_trials
from lorasweep.tuning.record.predictions import winner_logits
from lorasweep.tuning.report.searched import Searched, searched_of

MISTAKES = 10


@dataclass(frozen=True)
class Tested:
    """The winner's predictions of the test split: `probabilities` is float64, shape (rows, classes)."""

    data: Dataset
    probabilities: np.ndarray
    classes: list[ClassScores]

    @property
    def predicted(self) -> np.ndarray:
        """Class of each row, int64, shape (rows,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def confusion(self) -> np.ndarray:
        """Rows by true class and predicted class, int64, shape (classes, classes)."""
        count = len(self.data.label_names)
        matrix = np.zeros((count, count), dtype=np.int64)
        np.add.at(matrix, (self.data.test.labels, self.predicted), 1)
        return matrix

    def mistakes(self) -> list[dict[str, Any]]:
        """The rows that are wrong with the highest probability, the most certain one first."""
        test, names, predicted = self.data.test, self.data.label_names, self.predicted
        wrong = np.flatnonzero(predicted != test.labels)
        certain = self.probabilities[wrong, predicted[wrong]]
        worst = wrong[np.argsort(-certain, kind="stable")][:MISTAKES]
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


@dataclass(frozen=True)
class Sweep:
    """What a sweep's folder still holds; `missing` says of each part that it does not why."""

    name: str
    state: str
    config: SweepConfig
    plan: Mapping[str, Any]
    trials: list[TrialRecord]
    result: SweepResult | None
    searched: Searched
    space: list[tuple[str, str]]
    tested: Tested | None
    missing: list[str]

    @property
    def winner(self) -> str | None:
        """Id of the winner, once there is one."""
        return self.result.winner.id if self.result and self.result.winner else None

    def ranked(self) -> list[TrialRecord]:
        """All trials, the best first; those without a score come last, by number."""
        scored = [t for t in self.trials if t.score is not None and np.isfinite(t.score)]
        return [
            *rank_trials(scored, self.config.training.metric),
            *(trial for trial in self.trials if trial not in scored),
        ]


def read_sweep(folder: SweepFolder) -> Sweep:
    """Read what a report needs; the folder is left as it is, and no code of a space is run.

    Raises:
        SettingsError: the sweep's own records cannot be read.
    """
    config, trials, result = folder.config(), folder.trials(), folder.result()
    missing: list[str] = []
    space = _yaml_space(folder, config)
    searched = _searched(folder, trials, space.distributions() if space else {}, missing)
    rows = [(name, from_distribution(kind)) for name, kind in searched.distributions.items()]
    return Sweep(
        name=folder.name,
        state=folder.state(),
        config=config,
        plan=folder.plan(),
        trials=trials,
        result=result,
        searched=searched,
        space=space.describe() if space else rows,
        tested=_tested(folder, result, missing),
        missing=missing,
    )


def _yaml_space(folder: SweepFolder, config: SweepConfig) -> SearchSpace | None:
    path = folder.path / "space.yaml"
    try:
        return SearchSpace.from_yaml(path.read_text(encoding="utf-8"), Path(config.search.space).stem)
    except (OSError, UnicodeDecodeError, SettingsError):
        return None


def _searched(
    folder: SweepFolder,
    trials: Sequence[TrialRecord],
    known: Mapping[str, BaseDistribution],
    missing: list[str],
) -> Searched:
    path = folder.path / "study.db"
    try:
        # Opened for reading alone: a report must not make or mend a database, least of all a running sweep's.
        url = f"sqlite:///file:{quote(str(path.resolve()))}?mode=ro&uri=true"
        storage = optuna.storages.RDBStorage(url, skip_table_creation=True)
        try:
            study = optuna.load_study(study_name=folder.name, storage=storage)
            return searched_of(trials, study, known)
        finally:
            storage.engine.dispose()
    # A missing, broken or foreign database raises errors of several libraries; the records tell nearly as much.
    except Exception as error:
        missing.append(
            f"Optuna's study (study.db) could not be read ({type(error).__name__}): settings are taken from "
            "the trials' records"
        )
        return searched_of(trials, None, known)


def _tested(folder: SweepFolder, result: SweepResult | None, missing: list[str]) -> Tested | None:
    """The winner's predictions with their rows; None, and a line in `missing`, where they do not fit."""
    if result is None or result.winner is None:
        return None
    try:
        data = Dataset.load(folder.data)
    except DataError:
        missing.append("the prepared rows are gone: nothing is shown of single classes and rows")
        return None
    logits = winner_logits(folder, data, result.winner)
    if isinstance(logits, str):
        missing.append(logits)
        return None
    return Tested(
        data, np.exp(log_softmax(logits)), score_classes(logits, data.test.labels, data.label_names)
    )
