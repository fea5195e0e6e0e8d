"""A check of the training labels on disk: resumed fold by fold, read back, and refused where it does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lorasweep.training.data.dataset import Dataset, Texts, fingerprint
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.label_check import (
    CheckSettings,
    done_folds,
    read_label_check,
    write_fold,
)

NAMES = ("art", "law", "sea")
ROWS = 30
WRONG = (4, 11)


def dataset(pairs: bool = False) -> Dataset:
    """Labels in turn, but for two wrong ones; the last row is the only one of its class."""
    labels = np.arange(ROWS) % 2
    labels[list(WRONG)] = 1 - labels[list(WRONG)]
    labels[-1] = 2
    train = Texts(
        [f"text {n}" for n in range(ROWS)], [f"more {n}" for n in range(ROWS)] if pairs else None, labels
    )
    few = Texts(["a", "b"], ["", ""] if pairs else None, np.array([0, 1]))
    splits = {"train": train, "validation": few, "test": few}
    return Dataset(
        **splits,
        label_names=NAMES,
        text_columns=("title", "text") if pairs else ("text",),
        label_column="label",
        source="rows.csv",
        fingerprint=fingerprint(splits, NAMES),
        rows_read=ROWS,
        dropped={},
        left_out_classes={},
    )


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path, "news")
    folder.create(SweepConfig(name="news"))
    return folder


def settings(data: Dataset, folds: int = 3) -> CheckSettings:
    return CheckSettings(
        trial="t001", hyperparameters=Hyperparameters(rank=8), folds=folds, fingerprint=data.fingerprint
    )


def predict(folder: SweepFolder, fold: int, rows: np.ndarray) -> None:
    """The true classes by turns, more or less sure."""
    logits = np.zeros((len(rows), 3), dtype=np.float32)
    logits[np.arange(len(rows)), rows % 2] = 3 + 0.01 * rows
    write_fold(folder, fold, rows, logits)


def checked(folder: SweepFolder, data: Dataset, folds: int = 3) -> None:
    done_folds(folder, settings(data, folds))
    for fold in range(folds):
        predict(folder, fold, np.arange(fold, ROWS, folds))


@pytest.mark.parametrize("pairs", [False, True])
def test_the_contradicted_rows_in_order(folder: SweepFolder, pairs: bool) -> None:
    data = dataset(pairs)
    checked(folder, data)
    found = read_label_check(folder, data)
    assert found is not None
    # The surer prediction contradicts more. The last row cannot be judged.
    assert [suspect.row for suspect in found.suspects] == [11, 4]
    assert (found.rows, found.left_out, found.paired) == (ROWS - 1, 1, pairs)
    assert found.pairs == [("art", "law", 1), ("law", "art", 1)]
    assert np.isclose(found.share, 2 / 29)
    assert np.isclose(found.accuracy, 27 / 29)
    first = found.suspects[0]
    assert (first.text, first.pair, first.label, first.suggested) == (
        "text 11", "more 11" if pairs else "", "art", "law"
    )  # fmt: skip
    assert 0 < first.probability < 0.1 < 0.8 < first.suggested_probability < 1
    frame = found.frame()
    second = ["second_text"] if pairs else []
    assert list(frame) == [
        "text",
        *second,
        "label",
        "suggested",
        "probability",
        "suggested_probability",
        "correct",
    ]
    assert frame["text"].tolist() == ["text 11", "text 4"]
    assert set(frame["correct"]) == {""}
    assert len(found.frame(rows=1)) == 1


def test_a_check_goes_on_where_it_stopped(folder: SweepFolder) -> None:
    data = dataset()
    assert read_label_check(folder, data) is None
    assert done_folds(folder, settings(data)) == set()
    predict(folder, 1, np.arange(1, ROWS, 3))
    assert done_folds(folder, settings(data)) == {1}
    assert read_label_check(folder, data) is None
    # Another winner, or another number of folds: all of it anew.
    assert done_folds(folder, settings(data, folds=2)) == set()
    predict(folder, 1, np.arange(1, ROWS, 2))
    other = settings(data, 2).model_copy(update={"hyperparameters": Hyperparameters(rank=4)})
    assert done_folds(folder, other) == set()


@pytest.mark.parametrize("broken", ["cut off", "other rows", "a row is missing"])
def test_what_does_not_fit_is_one_line(folder: SweepFolder, broken: str) -> None:
    data = dataset()
    checked(folder, data)
    if broken == "cut off":
        (folder.label_check / "fold-1.safetensors").write_bytes(b"cut off")
    elif broken == "other rows":
        data = dataset(pairs=True)
    else:
        predict(folder, 2, np.arange(2, ROWS - 3, 3))
    with pytest.raises(
        SettingsError, match=r"remove that folder, then: lorasweep check-labels news"
    ) as caught:
        read_label_check(folder, data)
    assert "\n" not in str(caught.value)


def test_a_broken_list_of_settings_begins_anew(folder: SweepFolder) -> None:
    checked(folder, dataset())
    (folder.label_check / "check.json").write_text("{")
    assert done_folds(folder, settings(dataset())) == set()
