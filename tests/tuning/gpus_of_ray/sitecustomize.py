"""Two GPUs that exist for Ray alone: Python imports this first, where its folder is on `PYTHONPATH`.

In such a process `lorasweep.training.devices` says that there are two, and a trial that has reserved one computes on
the CPU.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class StandIn(MetaPathFinder):
    """Changes the module as soon as it is there, before anybody takes a function from it."""

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, whose loader then changes it."""
        if fullname != "lorasweep.training.devices":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            card = module.Card("two for Ray", (8, 0), 16 * 2**30)
            module.cards = lambda: [card, card]
            module.count_cards = lambda: 2
            module.reserved_device = lambda gpu_share: module.torch.device("cpu")

        loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, StandIn())
