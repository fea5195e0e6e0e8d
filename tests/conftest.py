"""What many tests share: no network, few threads, and tiny random checkpoints of each model family."""

from __future__ import annotations

import os
import shutil
import signal

# Before any library reads them: a test never asks a model hub, and tiny models are slowed by threads.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeCuda
from tiny_bases import make_tiny_base


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_store_is_left_set() -> Iterator[None]:
    """A test that leaves MLflow's store set fails itself; else one that runs long after it does."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    assert os.environ.get("MLFLOW_TRACKING_URI") == before, "mlflow.set_tracking_uri(None) is missing"


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_base(family)`: folder of a 2-layer random encoder of a family of `FAMILIES`, with a tokenizer.

    Only the encoder is saved, so that the head, and in some families a pooler, is missing as it is in real
    checkpoints; BERT's has its pooler. Made once a session: a test must not write into it.
    """
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = make_tiny_base(family, tmp_path_factory.mktemp(f"tiny-{family}") / family)
        return made[family]

    return make


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A machine whose GPUs a test adds: `gpus.add()`. Afterwards torch's settings of CUDA are as they were."""
    cudnn, tf32 = torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.matmul.allow_tf32
    yield FakeCuda().install(monkeypatch)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    torch.backends.cuda.matmul.allow_tf32 = tf32


@pytest.fixture(scope="module")
def place(
    tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A working directory with texts and a base model, for whole sweeps; it goes if all tests that use it pass.

    Pytest itself keeps such folders to the end of the session.
    """
    from whole_sweeps import write_rows

    place = tmp_path_factory.mktemp("work")
    write_rows(place / "rows.csv")
    shutil.copytree(tiny_base("bert"), place / "base")
    failed = request.session.testsfailed
    yield place
    if request.session.testsfailed == failed:
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def signals_heard() -> None:
    """As from a terminal: a job that a script puts in the background, or `nohup` starts, ignores some of them."""
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
