"""Files of what became of each validation row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lorasweep.training.scores.noise import standard_error
from lorasweep.training.scores.outcomes import row_outcomes
from lorasweep.tuning.record.outcomes import outcome_bytes, read_outcomes

OUTCOMES = row_outcomes(np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.5]]), np.array([0, 1, 1]))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t000.safetensors"
    path.write_bytes(outcome_bytes(OUTCOMES, rung=3))
    read = read_outcomes(path, 3)
    assert read is not None
    assert read.same_rows(OUTCOMES)
    assert read.predicted.tolist() == [0, 1, 0]
    assert read.losses.tolist() == OUTCOMES.losses.tolist()
    assert read.margins is not None
    assert OUTCOMES.margins is not None
    assert read.margins.tolist() == OUTCOMES.margins.tolist() == [-2, 1, -2.5]
    assert read.ranks is not None
    assert (read.ranks.tolist(), read.positive, read.label_names) == ([0, 0, 1], 1, ())
    # A trial that went on has a better evaluation than this file's.
    assert read_outcomes(path, 4) is None
    assert read_outcomes(path, None) is None


@pytest.mark.parametrize("content", [None, b"", b"cut off", outcome_bytes(OUTCOMES, 3)[:-4]])
def test_a_file_that_is_missing_or_broken_is_left_out(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t000.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert read_outcomes(path, 3) is None


def test_a_file_that_does_not_fit_itself_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t000.safetensors"
    tensors = {
        "labels": np.zeros(3, np.int32),
        "predicted": np.zeros(2, np.int32),
        "losses": np.zeros(3, np.float32),
    }
    save_file(tensors, path, {"rung": "1", "of_rows": "3"})
    assert read_outcomes(path, 1) is None
    tensors |= {"predicted": np.zeros(3, np.int32), "losses": np.array([0, np.nan, 0], np.float32)}
    save_file(tensors, path, {"rung": "1", "of_rows": "3"})
    assert read_outcomes(path, 1) is None


def test_a_positive_class_and_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "t000.safetensors"
    first = row_outcomes(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 1]), ("yes", "no"), positive=0)
    path.write_bytes(outcome_bytes(first, 1))
    read = read_outcomes(path, 1, ("yes", "no"))
    assert read is not None
    assert standard_error(read, "f1:yes") == standard_error(first, "f1:yes")
    assert (read.positive, read.label_names) == (0, ("yes", "no"))
    tensors = {"labels": first.labels, "predicted": first.predicted, "losses": first.losses}
    save_file(tensors, path, {"rung": "1", "of_rows": "2"})
    older = read_outcomes(path, 1)
    assert older is not None
    assert (older.margins, older.ranks, older.positive) == (None, None, 1)
    save_file(tensors | {"margins": np.zeros(3, np.float32)}, path, {"rung": "1", "of_rows": "2"})
    assert read_outcomes(path, 1) is None
