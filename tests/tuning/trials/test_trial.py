"""What a trial's process loads, its device and memory, and a lost checkpoint; whole sweeps test the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from ray.tune import Checkpoint
from tiny_trials import dataset, hyperparameters, settings

from lorasweep.training.devices import count_cards
from lorasweep.training.errors import ModelError
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.scores.noise import contributions, standard_error
from lorasweep.training.settings import Metric, TrainingSettings
from lorasweep.tuning.record.outcomes import read_outcomes
from lorasweep.tuning.record.reported import BEST_FILE, ERROR, OBJECTIVE, PROBE_FILE, RUNG, SCORE
from lorasweep.tuning.trials import trial
from lorasweep.tuning.trials.faults import NOT_SHARED, NodeError, NodeFailedError
from lorasweep.tuning.trials.node_watch import GIVEN_UP, PAUSE

CPU = torch.device("cpu")


def test_a_trials_process_has_no_library_that_only_the_driver_needs() -> None:
    # Each trial at once pays for an import with its memory, and each worker with its start.
    code = (
        "import sys, lorasweep.tuning.trials.trial as t; print({'sklearn', 'scipy', 'mlflow', 'sqlalchemy'}"
        " & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


def run(
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    place: Path,
    checkpoint: Path | None = None,
    kept: int = 0,
    report: Callable[..., None] | None = None,
    config: dict[str, Any] | None = None,
    **more: Any,
) -> list[dict[str, Any]]:
    """What a trial reports; its checkpoints are kept in `place` from the rung `kept` on. `more` is of its set-up."""
    reports: list[dict[str, Any]] = []

    def keep(result: dict[str, Any], checkpoint: Checkpoint | None = None) -> None:
        reports.append(result)
        if checkpoint is not None and kept and result[RUNG] == kept:
            shutil.copytree(checkpoint.path, place)

    monkeypatch.setattr(tune, "report", report or keep)
    monkeypatch.setattr(tune, "get_checkpoint", lambda: None)
    setup = trial.TrialSetup(resolve_base_model(str(base)), settings(), threads=1, gpu_share=0, **more)
    proposed = {
        "hyperparameters": hyperparameters().model_dump(),
        "checkpoint": checkpoint and str(checkpoint),
    }
    trial.run_trial(proposed | (config or {}), dataset(), setup)
    return reports


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: shutil.rmtree(folder),
        lambda folder: shutil.rmtree(folder / "weights"),
        lambda folder: (folder / "trial.json").write_text('{"step": 1'),
        lambda folder: (folder / BEST_FILE).unlink(),
    ],
    ids=["gone", "half gone", "cut off", "without its best"],
)
def test_a_trial_whose_checkpoint_cannot_be_read_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    spoil: Callable[[Path], object],
) -> None:
    base, place = tiny_base("bert"), tmp_path / "checkpoint"
    whole = run(monkeypatch, base, place, kept=2)
    assert [result[RUNG] for result in whole] == [1, 2, 3, 4]
    rest = run(monkeypatch, base, place, place)
    assert [result[RUNG] for result in rest] == [3, 4]
    assert [result["notes"] for result in rest] == [[], []]
    spoil(place)
    again = run(monkeypatch, base, place, place)
    assert [result[SCORE] for result in again] == [result[SCORE] for result in whole]
    assert "began anew: its checkpoint cannot be read (" in again[0]["notes"][0]


def test_what_a_node_lacks_is_no_failure_of_the_trial(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """Nothing is reported: Ray starts the trial again, elsewhere."""
    base = tiny_base("bert")
    trial.loaded_base.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(trial, "load_base", broken(ModelError("no weights")))
        with pytest.raises(NodeFailedError, match=r"\[\] .*: base model .* cannot be read \(no weights\)$"):
            run(monkeypatch, base, tmp_path)
    for error, told in (
        (OSError(5, "Input/output error"), "a checkpoint cannot be written to the storage (.*Input/output"),
        (
            RuntimeError(f"{NOT_SHARED} with"),
            "a checkpoint cannot be written .*the sweep's folder is not there",
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(trial, "write_checkpoint", lambda *arguments: None)
            told = told.replace("(", r"\(")

            def report(result: Any, checkpoint: Any = None, error: Exception = error) -> None:
                raise error

            with pytest.raises(NodeFailedError, match=told):
                run(patch, base, tmp_path, report=report)
    reports: list[Any] = []
    full = [OSError(28, "No space left on device")]

    def report_full(result: Any, checkpoint: Any = None) -> None:
        reports.append(result)
        if full:
            raise full.pop()

    run(monkeypatch, base, tmp_path, report=report_full)
    assert "the disk is full" in reports[-1][ERROR]


def broken(error: Exception) -> Callable[..., Any]:
    """A function that raises."""

    def call(*arguments: Any, **more: Any) -> Any:
        raise error

    return call


def test_a_checkpoint_whose_storage_is_away_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """To begin anew would throw away what the trial has done."""
    storage = tmp_path / "storage"
    place = storage / "checkpoint"
    storage.mkdir()
    run(monkeypatch, tiny_base("bert"), place, kept=2)
    storage.rename(tmp_path / "away")
    with pytest.raises(NodeFailedError, match=r"the storage .* is away, and with it a checkpoint"):
        run(monkeypatch, tiny_base("bert"), place, place, storage=str(storage))
    (tmp_path / "away").rename(storage)
    rest = run(monkeypatch, tiny_base("bert"), place, place, storage=str(storage))
    assert [(result[RUNG], result["notes"]) for result in rest] == [(3, []), (4, [])]
    assert rest[0]["ran_on"]["precision"] == "fp32"


def test_a_trial_waits_before_it_is_tried_again_and_ends_where_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(trial.time, "sleep", slept.append)
    monkeypatch.setattr(trial, "_train_and_report", lambda *arguments: None)
    assert run(monkeypatch, tiny_base("bert"), tmp_path, config={PAUSE: 7.0}) == []
    assert slept == [7.0]
    given_up = run(monkeypatch, tiny_base("bert"), tmp_path, config={GIVEN_UP: "its process died"})
    assert given_up == [{ERROR: "its process died", RUNG: 0}]


def test_the_best_of_metric_and_objective_are_reported_apart(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """Also by a trial that goes on, whose earlier evaluations are in its checkpoint alone."""
    base, place = tiny_base("bert"), tmp_path / "checkpoint"
    losses = iter((0.9, 0.5, 0.8, 0.7))
    accuracies = iter((0.2, 0.4, 0.6, 0.3))

    def scored(*arguments: Any, **more: Any) -> Any:
        for evaluation in fine_tune(*arguments, **more):
            scores = replace(evaluation.scores, loss=next(losses), accuracy=next(accuracies))
            yield replace(evaluation, scores=scores)

    monkeypatch.setattr("lorasweep.tuning.trials.trial.fine_tune", scored)
    whole = run(monkeypatch, base, place, kept=2, objective="loss")
    assert [result[OBJECTIVE] for result in whole] == [0.9, 0.5, 0.5, 0.5]
    assert [result[SCORE] for result in whole] == [0.2, 0.4, 0.6, 0.6]
    assert [result["evaluation"]["objective"] for result in whole] == [0.9, 0.5, 0.5, 0.5]
    losses, accuracies = iter((0.8, 0.4)), iter((0.1, 0.3))
    rest = run(monkeypatch, base, place, place, objective="loss")
    assert [(result[OBJECTIVE], result[SCORE]) for result in rest] == [(0.5, 0.4), (0.4, 0.4)]
    # A checkpoint from before there was an objective: the trial was judged by its metric.
    stored = json.loads((place / BEST_FILE).read_text())
    del stored["objective"]
    (place / BEST_FILE).write_text(json.dumps(stored))
    losses, accuracies = iter((0.8, 0.4)), iter((0.1, 0.5))
    old = run(monkeypatch, base, place, place)
    assert [(result[OBJECTIVE], result[SCORE]) for result in old] == [(0.4, 0.4), (0.5, 0.5)]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("load_base", "out of memory for the weights of "),
        ("build_classifier", "out of memory for the weights of "),
        ("TrainingState.start", "out of memory for gradients and moments of "),
        ("fine_tune", "out of memory for a trial: "),
        ("write_checkpoint", "out of memory for a trial: "),
    ],
)
def test_memory_that_runs_out_anywhere_is_one_line_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Callable[[str], Path], tmp_path: Path, place: str, told: str
) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\nmore")

    trial.loaded_base.cache_clear()
    monkeypatch.setattr(f"lorasweep.tuning.trials.trial.{place}", full)
    # An error that was raised would make Ray try the trial again, with the same end.
    (result,) = run(monkeypatch, tiny_base("bert"), tmp_path)
    assert result[ERROR].startswith(told)
    assert "run fewer trials at once" in result[ERROR]
    assert "\n" not in result[ERROR]


def test_what_a_trial_notes_reaches_its_record(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    def little(module: torch.nn.Module, arguments: Any, inputs: dict[str, torch.Tensor]) -> None:
        if module.training and len(inputs["input_ids"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def build(*arguments: Any) -> torch.nn.Module:
        model = build_classifier(*arguments)
        model.register_forward_pre_hook(little, with_kwargs=True)
        return model

    monkeypatch.setattr("lorasweep.tuning.trials.trial.build_classifier", build)
    results = run(monkeypatch, tiny_base("bert"), tmp_path)
    notes = ["out of memory: micro-batches of 4 rows, gradients accumulated"]
    assert [result["notes"] for result in results] == [notes] * 4


@pytest.mark.parametrize(("share", "device"), [(0.0, "cpu"), (0.25, "cuda:0"), (1.0, "cuda:0")])
def test_a_worker_is_set_up_for_its_share_of_a_gpu(
    share: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, float]] = []
    monkeypatch.setattr(trial, "reserved_device", lambda given: torch.device("cuda", 0) if given else CPU)
    monkeypatch.setattr(trial, "begin", lambda given, share: begun.append((str(given), share)))
    assert str(trial.prepare_worker(setup(share))) == device
    assert begun == [(device, share)]


@pytest.mark.skipif(count_cards() > 0, reason="this machine has a GPU")
def test_a_gpu_that_torch_cannot_use_ends_the_trial_with_one_line() -> None:
    """It would train on the CPU, and keep the GPU from others."""
    with pytest.raises(NodeError, match=r"a trial has reserved 0\.5 of a GPU: .*torch's CUDA is"):
        trial.prepare_worker(setup(0.5))


def setup(share: float) -> trial.TrialSetup:
    """Of trials with one thread."""
    return trial.TrialSetup(BaseModel("x", "x", None, "bert"), TrainingSettings(precision="fp32"), 1, share)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "loss"])
def test_a_trial_says_how_noisy_its_scores_are(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Callable[[str], Path], tmp_path: Path, metric: Metric
) -> None:
    """A standard error with each evaluation, and its rows in its checkpoint."""
    by_metric = settings().model_copy(update={"metric": metric})
    monkeypatch.setitem(globals(), "settings", lambda: by_metric)
    (first, *_) = run(monkeypatch, tiny_base("bert"), place := tmp_path / "checkpoint", kept=1)
    outcomes = read_outcomes(place / PROBE_FILE, 1)
    assert outcomes is not None
    assert outcomes.labels.tolist() == dataset().validation.labels.tolist()
    assert contributions(outcomes, metric).mean() == pytest.approx(first["evaluation"][metric], abs=1e-6)
    error = first["evaluation"]["standard_error"]
    assert error == pytest.approx(standard_error(outcomes, metric))
    assert error > 0
