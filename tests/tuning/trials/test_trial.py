"""What a trial's process loads, and its device. What a trial does there is tested by whole sweeps."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lorasweep.training.devices import count_cards
from lorasweep.training.errors import SettingsError
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.settings import TrainingSettings
from lorasweep.tuning.trials import trial

CPU = torch.device("cpu")


def test_a_trials_process_has_no_library_that_only_the_driver_needs() -> None:
    # Each trial at once pays for an import with its memory, and each worker with its start.
    code = (
        "import sys, lorasweep.tuning.trials.trial as t; print({'sklearn', 'scipy', 'mlflow', 'sqlalchemy'}"
        " & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


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
    with pytest.raises(SettingsError, match=r"a trial has reserved 0\.5 of a GPU: .*torch's CUDA is"):
        trial.prepare_worker(setup(0.5))


def setup(share: float) -> trial.TrialSetup:
    """Of trials with one thread."""
    return trial.TrialSetup(BaseModel("x", "x", None, "bert"), TrainingSettings(precision="fp32"), 1, share)
