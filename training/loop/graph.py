"""CUDA graphs, the one seam to torch's: GPU work recorded once, and then launched as a whole.

A step of BERT-base launches some 1,400 kernels. Launched one by one from Python they take longer than the GPU needs
to run them; a graph of them is one launch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch

# Graphs whose capture broke off. The allocator may go on asking them about streams, so they must not be freed.
_BROKEN: list[torch.cuda.CUDAGraph] = []


class Graphs(Protocol):
    """Captures functions whose work on the device can be repeated.

    Such a function reads and writes tensors that stay where they are, and decides nothing by their values.
    """

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function as it will be captured, and see that it does not wait for the device.

        Raises:
            RuntimeError: it waits.
        """

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record what a function does on the device, without doing it; the result does it, each time it is called."""

    def release(self) -> None:
        """Free all that was captured; nothing of it may be called any more."""


def graphs_for(device: torch.device) -> Graphs | None:
    """What captures functions on a device, or None where nothing can."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """Captures CUDA graphs that share one pool of memory.

    They may share it in any order of their replays, since none leaves a result in it: what is to stay is written into
    tensors from outside.
    """

    def __init__(self, device: torch.device) -> None:
        """Use a GPU; nothing is allocated yet."""
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function on the stream on which it will be captured.

        Libraries prepare themselves by stream, which must not happen within a capture. A wait for the device would
        end a capture, and leave the allocator in a poor state: so waits are errors here, before anything is captured.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        before = torch.cuda.get_sync_debug_mode()
        try:
            with torch.cuda.stream(self._stream), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls this mode a prototype
                torch.cuda.set_sync_debug_mode("error")
                function()
        finally:
            torch.cuda.set_sync_debug_mode(before)
            current.wait_stream(self._stream)

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record a function's kernels; the result launches them on the current stream."""
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context also restores the stream when a capture cannot be ended. Other threads may use the
            # GPU meanwhile, such as one that watches the resources.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ),
            ):
                function()
        except BaseException:
            _BROKEN.append(graph)
            with suppress(Exception):
                torch._C._cuda_endAllocateToPool(self._device.index or 0, self._pool)
            raise
        self._graphs.append(graph)
        return graph.replay

    def release(self) -> None:
        """Free the graphs and their memory."""
        torch.cuda.synchronize(self._device)
        for graph in self._graphs:
            graph.reset()
        self._graphs.clear()
        self._pool = torch.cuda.graph_pool_handle()
