"""CUDA graphs: on a GPU as they are; elsewhere, what is asked of torch when a capture fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from lorasweep.training.loop import graph
from lorasweep.training.loop.graph import CudaGraphs, graphs_for

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_nothing_is_captured_on_a_cpu() -> None:
    assert graphs_for(torch.device("cpu")) is None


class FakeCuda:
    """torch.cuda without a GPU: notes what is asked, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.mode: Any = 0
        self.ends = True

    def install(self, patch: pytest.MonkeyPatch) -> None:
        stream = type("Stream", (), {"wait_stream": lambda this, other: self.asked.append("wait")})
        made = type(
            "Graph", (), {"replay": lambda this: None, "reset": lambda this: self.asked.append("reset")}
        )
        patch.setattr(torch.cuda, "Stream", lambda device: stream())
        patch.setattr(torch.cuda, "current_stream", lambda device: stream())
        patch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
        patch.setattr(torch.cuda, "CUDAGraph", made)
        patch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.mode)
        patch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: setattr(self, "mode", mode))
        patch.setattr(torch.cuda, "synchronize", lambda device: self.asked.append("synchronize"))
        patch.setattr(torch.cuda, "stream", lambda stream: self.on("stream"))
        patch.setattr(torch.cuda, "graph", lambda graph, **options: self.capture(**options))
        patch.setattr(torch._C, "_cuda_endAllocateToPool", self.end, raising=False)

    def end(self, device: int, pool: tuple[int, int]) -> None:
        self.asked.append(f"end {device} {pool}")

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        self.asked.append(what)
        try:
            yield
        finally:
            self.asked.append(f"no {what}")

    @contextmanager
    def capture(self, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        try:
            yield
        finally:
            if not self.ends:
                raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A fake in the place of torch.cuda."""
    fake = FakeCuda()
    fake.install(monkeypatch)
    monkeypatch.setattr(graph, "_BROKEN", [])
    return fake


def test_a_wait_is_an_error_while_warming_up_and_only_then(cuda: FakeCuda) -> None:
    graphs = CudaGraphs(torch.device("cuda", 0))
    modes: list[Any] = []
    graphs.warm_up(lambda: modes.append(cuda.mode))
    assert modes == ["error"]
    assert cuda.mode == 0
    with pytest.raises(ZeroDivisionError):
        graphs.warm_up(lambda: print(1 / 0))
    assert cuda.mode == 0
    assert cuda.asked == ["wait", "stream", "no stream", "wait"] * 2


def test_a_capture_that_breaks_off_leaves_stream_and_allocator_in_order(cuda: FakeCuda) -> None:
    graphs = CudaGraphs(torch.device("cuda", 1))
    cuda.ends = False
    with pytest.raises(RuntimeError, match="previous error"):
        graphs.capture(lambda: print(1 / 0))
    assert cuda.asked == ["stream", "no stream", "end 1 (0, 1)"]
    # The allocator holds a reference to it.
    assert len(graph._BROKEN) == 1
    graphs.release()
    assert "reset" not in cuda.asked


def test_released_graphs_are_reset_once_the_device_is_done(cuda: FakeCuda) -> None:
    graphs = CudaGraphs(torch.device("cuda", 0))
    for _ in range(2):
        graphs.capture(lambda: None)
    cuda.asked.clear()
    graphs.release()
    graphs.release()
    assert cuda.asked == ["synchronize", "reset", "reset", "synchronize"]


@needs_gpu
def test_a_graph_repeats_what_was_captured() -> None:
    device = torch.device("cuda", 0)
    graphs = CudaGraphs(device)
    given, result = torch.ones(3, device=device), torch.zeros(3, device=device)

    def double() -> None:
        result.copy_(given * 2)

    graphs.warm_up(double)
    result.zero_()
    replay = graphs.capture(double)
    assert result.tolist() == [0, 0, 0]
    given.fill_(4)
    replay()
    assert result.tolist() == [8, 8, 8]
    with pytest.raises(RuntimeError, match="synchron"):
        graphs.warm_up(lambda: print(result.sum().item()))
    graphs.release()


@needs_gpu
def test_a_gpu_is_in_order_after_a_capture_that_failed() -> None:
    device = torch.device("cuda", 0)
    graphs, before = CudaGraphs(device), torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        graphs.capture(lambda: print(torch.ones(3, device=device).sum().item()))
    assert torch.cuda.current_stream() == before
    torch.cuda.empty_cache()
    given = torch.rand(1000, device=device)
    assert torch.nn.functional.dropout(given, 0.5).count_nonzero().item() < 1000
    graphs.release()
