"""Predictions of the training rows by models that have not seen them, and the labels that these contradict."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save

from lorasweep.training.data.corrections import CORRECT, SECOND_TEXT, TEXT
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.folds import learnable
from lorasweep.training.errors import SettingsError
from lorasweep.training.scores.label_errors import find_label_errors
from lorasweep.training.scores.outcomes import log_softmax
from lorasweep.tuning.record.files import read_record, write_bytes, write_text
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import Record, RecordedHyperparameters, TrialId

if TYPE_CHECKING:
    import pandas as pd

CHECK_FILE = "check.json"


class CheckSettings(Record):
    """What decides the predictions of a check.

    Attributes:
        trial: the winner's id.
        folds: number of trainings, each of which predicts a part of the rows.
        fingerprint: of the data set.
    """

    trial: TrialId
    hyperparameters: RecordedHyperparameters
    folds: int
    fingerprint: str


@dataclass(frozen=True)
class SuspectLabel:
    """A training row whose label is probably wrong.

    Attributes:
        row: its number among the training rows, from 0.
        pair: its second text; empty without one.
        suggested: the label that is most probable by a model that has not seen the row.
        probability, suggested_probability: of both labels by that model, in [0, 1].
    """

    row: int
    text: str
    pair: str
    label: str
    suggested: str
    probability: float
    suggested_probability: float


@dataclass(frozen=True)
class LabelCheck:
    """Which training labels the winner's settings contradict.

    Attributes:
        settings: the winner and the folds.
        suspects: rows whose label is probably wrong, the most contradicted first.
        rows: training rows that were judged.
        left_out: rows that no model can judge, as the other folds have none of their class.
        share: estimated share of wrong labels among the judged rows, in [0, 1].
        accuracy: share of the judged rows whose label was predicted.
        paired: whether the data have two texts a row.
    """

    settings: CheckSettings
    suspects: tuple[SuspectLabel, ...]
    rows: int
    left_out: int
    share: float
    accuracy: float
    paired: bool

    @property
    def pairs(self) -> list[tuple[str, str, int]]:
        """The classes that are confused: (label, suggested label, suspect rows), the most frequent first."""
        counts = Counter((suspect.label, suspect.suggested) for suspect in self.suspects)
        return [(*names, rows) for names, rows in counts.most_common()]

    def frame(self, rows: int | None = None) -> pd.DataFrame:
        """The suspect rows as a table for a person to fill: the last column, `correct`, is empty.

        Args:
            rows: only so many, the most contradicted.
        """
        import pandas as pd

        shown = self.suspects[:rows]
        columns: dict[str, list[str] | list[float]] = {TEXT: [one.text for one in shown]}
        if self.paired:
            columns[SECOND_TEXT] = [one.pair for one in shown]
        columns |= {
            "label": [one.label for one in shown],
            "suggested": [one.suggested for one in shown],
            "probability": [round(one.probability, 6) for one in shown],
            "suggested_probability": [round(one.suggested_probability, 6) for one in shown],
            CORRECT: [""] * len(shown),
        }
        return pd.DataFrame(columns)


def done_folds(folder: SweepFolder, settings: CheckSettings) -> set[int]:
    """The folds of a check that are on record; those of a check with other settings are removed."""
    path = folder.label_check / CHECK_FILE
    try:
        same = path.is_file() and read_record(path, CheckSettings) == settings
    except SettingsError:
        same = False
    if not same:
        shutil.rmtree(folder.label_check, ignore_errors=True)
        folder.label_check.mkdir(parents=True)
        write_text(path, settings.model_dump_json(indent=1))
    return {number for number in range(settings.folds) if _fold_file(folder, number).is_file()}


def write_fold(folder: SweepFolder, number: int, rows: np.ndarray, logits: np.ndarray) -> None:
    """Write what a fold's model predicts.

    Args:
        number: of the fold, from 0.
        rows: numbers of its training rows; int64, shape (rows,).
        logits: float32, shape (rows, classes).
    """
    write_bytes(_fold_file(folder, number), save({"rows": rows, "logits": logits}))


def read_label_check(folder: SweepFolder, data: Dataset) -> LabelCheck | None:
    """What a check of the training labels has found; None before all its folds are on record.

    Raises:
        SettingsError: its files cannot be read, or do not fit the rows.
    """
    path = folder.label_check / CHECK_FILE
    if not path.is_file():
        return None
    settings = read_record(path, CheckSettings)
    files = [_fold_file(folder, number) for number in range(settings.folds)]
    if not all(file.is_file() for file in files):
        return None
    labels, names = data.train.labels, data.label_names
    logits = np.full((len(labels), len(names)), np.nan)
    fold = np.zeros(len(labels), dtype=np.int64)
    try:
        for number, file in enumerate(files):
            arrays = load_file(file)
            logits[arrays["rows"]], fold[arrays["rows"]] = arrays["logits"], number
        if settings.fingerprint != data.fingerprint or not np.isfinite(logits).all():
            raise ValueError("they are not of these rows")
    except Exception as error:  # safetensors has its own errors for broken files
        again = folder.command("check-labels")
        raise SettingsError(
            f"{folder.label_check}: its predictions cannot be used ({error}); remove that folder, then: {again}"
        ) from error
    judged = np.flatnonzero(learnable(labels, fold))
    probabilities, own = np.exp(log_softmax(logits[judged])), labels[judged]
    found = find_label_errors(probabilities, own)
    texts = data.train
    suspects = [
        SuspectLabel(
            row=int(judged[place]),
            text=texts.text[judged[place]],
            pair=texts.pair[judged[place]] if texts.pair is not None else "",
            label=names[own[place]],
            suggested=names[found.suggested[place]],
            probability=float(probabilities[place, own[place]]),
            suggested_probability=float(probabilities[place, found.suggested[place]]),
        )
        for place in found.suspect.tolist()
    ]
    return LabelCheck(
        settings=settings,
        suspects=tuple(suspects),
        rows=len(judged),
        left_out=len(labels) - len(judged),
        share=found.share,
        accuracy=float((found.suggested == own).mean()) if len(own) else 0.0,
        paired=texts.pair is not None,
    )


def _fold_file(folder: SweepFolder, number: int) -> Path:
    return folder.label_check / f"fold-{number}.safetensors"
