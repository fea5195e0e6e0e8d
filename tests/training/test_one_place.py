"""Nothing but `training/devices.py` asks `torch.cuda`, so that devices, precision and memory are decided once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("training", "search_spaces", "tuning", "lorasweep")
# The module itself, its settings, and importing either by another name.
CUDA = re.compile(r"torch(\.backends)?\.cuda\b|from torch(\.backends)? import .*\bcuda\b")
ALLOWED = {
    "training/devices.py",
    "training/loop/graph.py",  # the calls around a captured step
    "tuning/tracking/models/serving.py",  # runs where lorasweep is not installed
}


def files() -> list[str]:
    return [path.relative_to(ROOT).as_posix() for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]


def test_torch_cuda_is_asked_in_one_place() -> None:
    naming = {file for file in files() if CUDA.search((ROOT / file).read_text(encoding="utf-8"))}
    assert "training/devices.py" in naming
    assert naming - ALLOWED == set(), "ask lorasweep.training.devices instead"


@pytest.mark.parametrize(
    "line",
    [
        "if torch.cuda.is_available():",
        "import torch.cuda as gpu",
        "from torch import cuda",
        "from torch import nn, cuda",
        "torch.backends.cuda.enable_cudnn_sdp(False)",
    ],
)
def test_what_asks(line: str) -> None:
    assert CUDA.search(line)
    assert not CUDA.search('device.type == "cuda" and torch.version.cuda')
