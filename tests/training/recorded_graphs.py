"""What stands in for CUDA graphs on a CPU: the operators of a function, recorded and run again on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# The last one is a tensor made of the host's numbers, which on a GPU is a copy.
WAITS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.lift_fresh.default,
}


class RecordedGraphs:
    """Graphs of operators. As with CUDA's, Python code runs at the capture alone, which changes no tensor.

    Attributes:
        captured: tokens in the static batch of each capture, in order.
        replays: so far.
        spoil: called after each replay.
    """

    def __init__(self, spoil: Callable[[], None] = lambda: None) -> None:
        self.captured: list[int] = []
        self.replays, self.released, self.spoil = 0, False, spoil

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run it."""
        function()

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record it."""
        random, record = torch.get_rng_state(), _Record()
        with record:
            function()
        record.undo()
        torch.set_rng_state(random)
        self.captured.append(record.tokens)

        def replay() -> None:
            assert not self.released
            self.replays += 1
            record.run()
            self.spoil()

        return replay

    def release(self) -> None:
        """Refuse further replays."""
        self.released = True


class _Record(TorchDispatchMode):
    """Runs operators and keeps them with their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.tokens = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in WAITS:
            raise RuntimeError(f"{func} waits for the device, which a capture does not permit")
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = tree_leaves(given.get(argument.name))
                self.before += [(t, t.detach().clone()) for t in written if isinstance(t, torch.Tensor)]
        if func is aten.embedding.default:
            self.tokens = max(self.tokens, args[1].numel())
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result

    def undo(self) -> None:
        """Give every tensor back what was in it before."""
        with torch.no_grad():
            for tensor, value in reversed(self.before):
                tensor.detach().copy_(value)
        self.before.clear()

    def run(self) -> None:
        """Run all again; a result is written to where it was."""
        with torch.no_grad():
            for func, args, kwargs, result in self.calls:
                for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and not _share(old, new):
                        old.detach().copy_(new)


def _share(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
