"""A row in a process of its own: what goes wrong there is one line here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import psutil
import pytest
import torch

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.errors import ModelError, TrainingError
from lorasweep.training.loop.state import Evaluation
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.settings import Hyperparameters, TrainingSettings
from lorasweep.tuning.compare.process import RowTask, _work, measure_apart

SETTINGS = TrainingSettings(epochs=2, evaluations_per_epoch=1, precision="fp32")


def texts(rows: int) -> EncodedTexts:
    ids = np.tile(np.array([2, 5, 6, 3], dtype=np.int32), rows)
    return EncodedTexts(ids, None, np.arange(0, 4 * rows + 1, 4), np.arange(rows) % 2, 0)


def task(base: Path, **settings: object) -> RowTask:
    data = EncodedDataset(texts(16), texts(6), texts(6), ("a", "b"))
    chosen = {"rank": 2, "alpha": 4, "target_modules": "query-value", "batch_size": 8} | settings
    hyperparameters = Hyperparameters.model_validate(chosen)
    scorer, device = Scorer.of(data.label_names), torch.device("cpu")
    return RowTask(resolve_base_model(str(base)), data, hyperparameters, SETTINGS, scorer, 1, device)


def test_measurements_and_evaluations_come_back(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminated: list[BaseProcess] = []
    monkeypatch.setattr(BaseProcess, "terminate", terminated.append)
    heard: list[Evaluation] = []
    logits, costs = measure_apart(task(tiny_base("bert")), heard.append)
    assert costs.precision == "fp32"
    assert logits.shape == (6, 2)
    assert [evaluation.rung for evaluation in heard] == [1, 2]
    assert 0 <= costs.others_share <= 1
    # Python would warn at exit of semaphores that the process has not given back.
    assert terminated == []


def test_an_error_that_a_user_can_mend_is_the_same_here(tiny_base: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="matches no module"):
        measure_apart(task(tiny_base("bert"), target_modules=r"nothing[.]here"), lambda evaluation: None)


def test_a_process_that_is_killed_is_one_line(tiny_base: Callable[[str], Path]) -> None:
    def kill(evaluation: Evaluation) -> None:
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"its process died \(exit code -9\)"):
        measure_apart(task(tiny_base("bert")), kill)


def test_a_rows_process_does_without_ray() -> None:
    """Its memory and its start are a row's alone."""
    code = (
        "import sys, lorasweep.tuning.compare.process; print({'ray', 'optuna', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_memory_that_runs_out_is_one_line(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it does: here while the base model is loaded."""

    def full(*arguments: object) -> None:
        raise torch.AcceleratorError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    sent: list[object] = []
    begun: list[torch.device] = []
    monkeypatch.setattr("lorasweep.training.devices.begin", begun.append)
    for name in ("quiet_environment", "quiet_libraries"):
        monkeypatch.setattr(f"lorasweep.tuning.quiet.{name}", lambda: None)
    monkeypatch.setattr("lorasweep.tuning.compare.process.measure", full)
    _work(task(tiny_base("bert")), cast(Connection, SimpleNamespace(send=sent.append)))
    (error,) = sent
    assert begun == [torch.device("cpu")]
    assert isinstance(error, TrainingError)
    assert (
        str(error) == "out of memory on cpu (CUDA error: out of memory); lower --batch-size or --max-length"
    )
