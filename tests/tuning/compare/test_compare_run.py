"""Row after row, each trained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from compared import SETTINGS, WINNER
from fake_cuda import FakeCuda

from lorasweep.training.data.dataset import Dataset, Texts
from lorasweep.training.data.encoding import encode_dataset
from lorasweep.training.errors import TrainingError
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.settings import TrainingSettings
from lorasweep.tuning.compare.process import RowTask
from lorasweep.tuning.compare.record import ComparisonFolder, Costs
from lorasweep.tuning.compare.rows import row_plans
from lorasweep.tuning.compare.run import Prepared, run_rows
from lorasweep.tuning.sweep.winner.after_trials import score_test

TRAINING = TrainingSettings(epochs=1, evaluations_per_epoch=1, max_length=8)


def small(folder: Path, sets: bool = False) -> Prepared:
    base = resolve_base_model(str(folder))
    labels = np.array([[0, 1], [1, 1]] * 8, np.uint8) if sets else np.array([0, 1] * 8)
    part = Texts(["good news", "bad news"] * 8, None, labels)
    dataset = Dataset(
        train=part, validation=part, test=part, label_names=("bad", "good"), text_columns=("text",),
        label_column="label", source="made", fingerprint="x", rows_read=48, dropped={}, left_out_classes={},
        multi_label=sets,
    )  # fmt: skip
    return Prepared(dataset, encode_dataset(dataset, load_tokenizer(base), 8), base)


def test_without_an_amp_type_nothing_is_trained_twice(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorasweep.training.devices.bf16_in_hardware", lambda device, workers: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    prepared = small(tiny_base("bert"))
    settings = SETTINGS.model_copy(update={"training": TRAINING, "batch_size": 8})
    folder = ComparisonFolder(tmp_path, "demo")
    folder.open(settings)
    plans = row_plans(settings, WINNER)[:2]
    assert [plan.precision for plan in plans] == ["fp32", "auto"]
    lines: list[str] = []

    rows = run_rows(plans, settings, folder, prepared, lines.append)
    assert [row.same_as for row in rows] == [None, "full-fp32"]
    assert [row.plan for row in rows] == plans
    assert lines == [
        "row 1 of 2, full fine-tuning (fp32): loading",
        f"row 1 of 2, full fine-tuning (fp32): evaluation 1 of 1: {rows[0].validation_score:.1%}",
    ]
    assert rows[1].test == rows[0].test
    assert list(folder.rows()) == ["full-amp", "full-fp32"]
    # And what is on record is not trained again either.
    assert run_rows(plans, settings, folder, prepared, lines.append) == rows
    # Nor one that an older version has described in other words.
    described = rows[0].plan.model_copy(update={"about": "in other words"})
    folder.write_row(rows[0].model_copy(update={"plan": described}))
    assert run_rows(plans, settings, folder, prepared, lines.append) == rows
    assert len(lines) == 2


def test_all_rows_train_on_the_gpu_with_the_most_free_memory(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: FakeCuda
) -> None:
    def note(task: RowTask, listen: object) -> None:
        tasks.append(task)
        raise TrainingError("no such GPU here")

    gpus.add("full").add("free")
    free = iter([{"uuid-0": 10, "uuid-1": 9000}, {"uuid-0": 9000, "uuid-1": 10}])
    monkeypatch.setattr("lorasweep.training.devices.free_memory", lambda: next(free))
    monkeypatch.setattr("lorasweep.tuning.compare.run.measure_apart", note)
    tasks: list[RowTask] = []
    settings = SETTINGS.model_copy(update={"training": TRAINING, "batch_size": 8})
    folder = ComparisonFolder(tmp_path, "demo")
    folder.open(settings)
    plans = row_plans(settings, WINNER)[:2]
    rows = run_rows(plans, settings, folder, small(tiny_base("bert")), lambda line: None)
    assert [task.device for task in tasks] == [torch.device("cuda", 1)] * 2
    assert {tuple(row.machine["gpus"]) for row in rows} == {("full", "free")}


@pytest.mark.parametrize(
    ("sets", "threshold", "scorer"),
    [
        (True, "f2", Scorer(("bad", "good"), named=("micro_f1",), several=True, rule="f2")),
        (True, None, Scorer(("bad", "good"), named=("micro_f1",), several=True)),
        # Of two classes every row takes the more probable one.
        (False, "mcc", Scorer(("bad", "good"), positive=0, named=("accuracy",))),
    ],
)
def test_rows_are_judged_as_their_sweep_is(
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sets: bool,
    threshold: str | None,
    scorer: Scorer,
) -> None:
    """By its rule for thresholds, its metric and its positive class; the test split by the thresholds so chosen."""
    tasks: list[RowTask] = []
    logits = np.log(np.array([[0.3, 0.9], [0.7, 0.6]] * 8) / np.array([[0.7, 0.1], [0.3, 0.4]] * 8))

    def note(task: RowTask, listen: object) -> tuple[np.ndarray, Costs]:
        tasks.append(task)
        return logits, Costs(precision="fp32", thresholds=(0.2, 0.5) if sets else ())

    monkeypatch.setattr("lorasweep.tuning.compare.run.measure_apart", note)
    training = TRAINING if sets else TRAINING.model_copy(update={"positive": "bad"})
    settings = SETTINGS.model_copy(update={"training": training, "threshold": threshold})
    folder = ComparisonFolder(tmp_path, "demo")
    folder.open(settings)
    prepared = small(tiny_base("bert"), sets)
    (row,) = run_rows(row_plans(settings, WINNER)[:1], settings, folder, prepared, lambda line: None)
    assert row.error is None
    assert [task.scorer for task in tasks] == [scorer]
    assert tasks[0].training_settings.metric == scorer.named[0]
    assert row.test == score_test(logits, prepared.dataset.test.labels, scorer.fixed(row.thresholds))
