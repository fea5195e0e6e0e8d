"""A check of the labels: refused before any work, and with a fold that fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import ray

import lorasweep
from lorasweep.training.data.dataset import Dataset, Texts, fingerprint
from lorasweep.training.errors import ExportError, SettingsError, TrainingError
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.files import hold
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult, TestScores, Winner
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep import check_labels as checking
from lorasweep.tuning.sweep import start

NAMES = ("art", "law")


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A finished sweep of 12 training rows."""
    folder = SweepFolder(tmp_path / "mlruns", "news")
    folder.create(SweepConfig(name="news"))
    train = Texts([f"text {n}" for n in range(12)], None, np.arange(12) % 2)
    few = Texts(["a", "b"], None, np.array([0, 1]))
    splits = {"train": train, "validation": few, "test": few}
    data = Dataset(**splits, label_names=NAMES, text_columns=("text",), label_column="label", source="rows.csv",
                   fingerprint=fingerprint(splits, NAMES), rows_read=16, dropped={}, left_out_classes={})  # fmt: skip
    data.save(folder.data)
    folder.write_trial(TrialRecord(id="t000", number=0, state="completed", seconds=60.0))
    scores = TestScores(accuracy=0.5, macro_f1=0.5, loss=1)
    winner = Winner(id="t000", score=0.5, hyperparameters=Hyperparameters(), test=scores)
    folder.write_result(SweepResult(state="finished", metric="accuracy", winner=winner))
    return folder


class Call:
    """In place of a worker of Ray: predicts each row's own class; the call of the number `failing` fails."""

    failing = 0
    rows: ClassVar[list[list[int]]] = []
    asked = 0

    def __init__(
        self, resources: Any, function: Any, hyperparameters: Any, rows: np.ndarray, *_: Any
    ) -> None:
        self.task, self._rows = object(), rows
        self.rows.append(rows.tolist())

    def result(self) -> np.ndarray:
        type(self).asked += 1
        if self.asked == self.failing:
            raise TrainingError("loss is not finite")
        return np.eye(2, dtype=np.float32)[self._rows % 2] * 5


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> type[Call]:
    resources = SimpleNamespace(concurrency=2, cpus=2, gpus=0, cpus_per_trial=1)
    config = SimpleNamespace(resources=SimpleNamespace(address=None))
    plan = SimpleNamespace(config=config, resources=resources, encoded=None)
    monkeypatch.setattr(start, "existing", lambda folder, config: SimpleNamespace(plan=plan))
    monkeypatch.setattr("lorasweep.tuning.sweep.plan.plan.trial_setup", lambda plan, resources: None)
    monkeypatch.setattr("lorasweep.tuning.trials.cluster.start_ray", lambda *_: None)
    monkeypatch.setattr("lorasweep.tuning.trials.remote.RemoteCall", Call)
    monkeypatch.setattr(ray, "put", lambda data: data)
    monkeypatch.setattr(ray, "wait", lambda tasks: (tasks[:1], tasks[1:]))
    monkeypatch.setattr(Call, "rows", [])
    monkeypatch.setattr(Call, "asked", 0)
    return Call


def test_a_fold_that_fails_is_named_and_trained_again(
    folder: SweepFolder, calls: type[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(calls, "failing", 2)
    with pytest.raises(
        TrainingError, match=r"fold 2 of 3 of the label check failed \(loss is not finite\)"
    ) as caught:
        checking.check_labels(folder, 3, told.append)
    assert "lorasweep check-labels news --folds 3" in str(caught.value)
    assert told[1:] == [
        f"{done} of 3 folds predicted, 2 at a time; about 1:20 of training" for done in (0, 1, 1)
    ]
    assert len(calls.rows) == 3
    assert sorted(row for rows in calls.rows for row in rows) == list(range(12))
    found = checking.check_labels(folder, 3)
    assert len(calls.rows) == 4
    assert calls.rows[3] == calls.rows[1]
    assert (found.rows, found.accuracy, found.suspects) == (12, 1.0, ())
    checking.check_labels(folder, 3)
    assert len(calls.rows) == 4


def test_rows_of_a_group_are_in_one_fold_where_groups_are_kept(
    folder: SweepFolder, calls: type[Call], caplog: pytest.LogCaptureFixture
) -> None:
    data = replace(Dataset.load(folder.data), group_column="author")
    data.save(folder.data)
    checking.check_labels(folder, 2)
    assert "did not keep the groups (author)" in caplog.text
    caplog.clear()
    grouped = replace(data.train, group=[f"by {n // 4}" for n in range(12)])
    replace(data, train=grouped, validation=replace(data.validation, group=["x", "x"]),
            test=replace(data.test, group=["y", "y"])).save(folder.data)  # fmt: skip
    checking.check_labels(folder, 3)
    assert sorted(calls.rows[-3:]) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert caplog.text == ""


def test_what_cannot_be_is_refused_before_any_work(folder: SweepFolder, tmp_path: Path) -> None:
    sweep = lorasweep.open("news", mlruns=folder.mlruns)
    (tmp_path / "there.csv").write_text("mine")
    for given, kind, said in (
        ({"folds": 1}, SettingsError, "folds=1: ask for at least 2"),
        ({"folds": 13}, SettingsError, r"\(12 training rows here\)"),
        ({"rows": 0}, SettingsError, "rows=0: ask for at least 1"),
        ({"out": tmp_path / "there.csv"}, ExportError, "exists already"),
        ({"out": "there.doc"}, SettingsError, "'.doc' is not one of"),
    ):
        with pytest.raises(kind, match=said):
            sweep.check_labels(**given, verbose=False)
    assert (tmp_path / "there.csv").read_text() == "mine"
    with (
        hold(folder.path / checking.LOCK, "held"),
        pytest.raises(SettingsError, match="another process is checking its labels"),
    ):
        sweep.check_labels(verbose=False)
    folder.write_result(SweepResult(state="interrupted", metric="accuracy"))
    with pytest.raises(SettingsError, match=r"no winner to check its labels with \(it is interrupted\)"):
        lorasweep.open("news", mlruns=folder.mlruns).check_labels(verbose=False)


def test_several_labels_a_text_are_refused(folder: SweepFolder) -> None:
    data = Dataset.load(folder.data)
    sets = {
        name: replace(part, labels=np.eye(2, dtype=np.uint8)[part.labels])
        for name, part in data.splits().items()
    }
    replace(data, **sets, multi_label=True, fingerprint=fingerprint(sets, NAMES)).save(folder.data)
    with pytest.raises(SettingsError, match="several labels each, and a check is of one label a text"):
        checking.check_labels(folder)
