"""The report's labels to check: there once they have been checked, and texts of strangers are text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reported_sweeps import SCRIPT, page_of

from lorasweep.training.data.dataset import Dataset, fingerprint
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.label_check import CheckSettings, done_folds, read_label_check, write_fold


def check(folder: SweepFolder) -> Dataset:
    """The test rows as training rows, and two folds of predictions: the class before each row's own."""
    data = Dataset.load(folder.data)
    splits = data.splits() | {"train": data.test}
    data = replace(data, train=data.test, fingerprint=fingerprint(splits, data.label_names))
    data.save(folder.data)
    rows, classes = len(data.train), len(data.label_names)
    done_folds(
        folder,
        CheckSettings(trial="t001", hyperparameters=Hyperparameters(), folds=2, fingerprint=data.fingerprint),
    )
    for fold in range(2):
        numbers = np.arange(fold, rows, 2)
        logits = np.zeros((len(numbers), classes), dtype=np.float32)
        logits[np.arange(len(numbers)), data.train.labels[numbers] - 1] = 4 + numbers / 100
        write_fold(folder, fold, numbers, logits)
    return data


@pytest.mark.usefixtures("bare")
def test_a_check_is_shown(folder: SweepFolder) -> None:
    assert "Labels to check" not in page_of(folder).text
    data = check(folder)
    found = read_label_check(folder, data)
    assert found is not None
    assert found.suspects
    page = page_of(folder)
    assert "Labels to check" in page.text
    assert f"contradict {len(found.suspects)} of them" in page.text
    rows = page.below("text", "label", "probability", "suggested")
    assert len(rows) == min(20, len(found.suspects))
    for suspect, (text, label, low, suggested, high) in zip(found.suspects, rows, strict=False):
        assert SCRIPT in text
        assert (label.split(), suggested.split()) == (suspect.label.split(), suspect.suggested.split())
        assert float(low.rstrip("%")) < float(high.rstrip("%"))
    assert "lorasweep check-labels demo" in page.text


@pytest.mark.usefixtures("bare")
def test_a_check_that_cannot_be_read_is_told(folder: SweepFolder) -> None:
    check(folder)
    (folder.label_check / "fold-0.safetensors").write_bytes(b"cut off")
    page = page_of(folder)
    assert "Labels to check" not in page.text
    assert "the check of the training labels could not be read" in page.text
