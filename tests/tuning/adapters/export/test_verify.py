"""In which precision an export is compared with its trial, and how closely."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_adapters import TEXT, export_adapter

from lorasweep.training.amp_types import Precision
from lorasweep.training.data.dataset import Texts
from lorasweep.training.errors import ExportError
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.tuning.adapters.export import verify
from lorasweep.tuning.adapters.export.verify import comparison, verify_export

LOGITS = np.array([[4.0, -2.0]], dtype=np.float32)
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.device], list[torch.device]]:
    """`here(device)`: what this machine has to compare on, with all types in hardware; what CUDA is set up for."""
    begun: list[torch.device] = []

    def has(device: torch.device) -> list[torch.device]:
        monkeypatch.setattr(verify, "choose_device", lambda kind: CPU if kind == "cpu" else device)
        monkeypatch.setattr(verify, "begin", begun.append)
        monkeypatch.setattr(verify.AmpPolicy, "in_hardware", True)
        return begun

    return has


@pytest.mark.parametrize(
    ("trained_in", "trained_on", "device", "compared_in", "share"),
    [
        ("fp32", "cpu", CUDA, "fp32", 0.001),
        # In TF32, which this machine may not have.
        ("fp32", "cuda", CUDA, "fp32", 0.01),
        ("fp32", "cuda", CPU, "fp32", 0.01),
        ("bf16", "cuda", CUDA, "bf16", 0.05),
        ("bf16", "cpu", CPU, "bf16", 0.05),
        # A cluster's trials and a driver without a GPU add in another order, and round to 8 bits in between.
        ("bf16", "cuda", CPU, "bf16", 0.1),
        ("fp16", "cuda", CUDA, "fp16", 0.05),
        ("fp16", "cuda", CPU, "fp32", 0.1),
    ],
)
def test_an_export_is_compared_as_its_trial_ran(
    trained_in: Precision,
    trained_on: str,
    device: torch.device,
    compared_in: Precision,
    share: float,
    here: Callable[[torch.device], list[torch.device]],
) -> None:
    begun = here(device)
    amp, tolerance = comparison(trained_in, trained_on, LOGITS)
    assert (amp.name, amp.device.type) == (compared_in, device.type if trained_on == "cuda" else "cpu")
    assert tolerance == pytest.approx(share * 4)
    assert begun == [amp.device]


def test_half_precision_is_compared_more_loosely_on_this_machine() -> None:
    fp32, bf16, fp16 = (comparison(name, "cpu", LOGITS) for name in ("fp32", "bf16", "fp16"))
    assert fp32[1] == pytest.approx(0.004)
    assert 0.1 < bf16[1] <= 0.4
    assert fp16[0].name == "fp32"  # a CPU has none
    assert fp16[1] == pytest.approx(0.4)


def test_the_folders_own_rounding_is_no_difference_and_other_weights_are(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """Half precision's error may be any share of small logits."""
    rows = Texts(TEXT[:64], None, np.zeros(64, dtype=np.int64))
    folder = export_adapter(tiny_base("bert"), tmp_path / "adapter", ("title",))
    other = export_adapter(tiny_base("bert"), tmp_path / "other", ("title",), seed=2)
    fp32, bf16 = (AmpPolicy(name, CPU) for name in ("fp32", "bf16"))
    # With no expectation at all, the difference is the logit itself.
    nothing = np.zeros((64, 3), dtype=np.float32)
    largest = verify_export(folder, rows, nothing, fp32, np.inf)
    exact, wrong = (_logits(path, rows, fp32) for path in (folder, other))
    rounding = verify_export(folder, rows, exact, bf16, 0.0)
    assert 0 < rounding < largest / 10
    with pytest.raises(ExportError, match="does not predict what the trial did"):
        verify_export(folder, rows, wrong, bf16, 0.0)
    with pytest.raises(ExportError, match="0 is allowed"):
        verify_export(folder, rows, _logits(folder, rows, bf16), fp32, 0.0)


def _logits(folder: Path, rows: Texts, amp: AmpPolicy) -> np.ndarray:
    model, tokenizer = verify.load_plainly(folder, {})
    encoded = verify.encode_texts(tokenizer, rows.text, None, None, tokenizer.model_max_length)
    return verify.predict_logits(model, encoded, amp)
