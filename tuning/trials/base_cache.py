"""The base models that a worker keeps from trial to trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil

from lorasweep.training.model.base_model import LoadedBase

# Of base models of different kinds, those of the last two; a sweep that chooses among more loads some again.
MOST_KEPT = 2
# Times the size of the base models that are kept have to be free beside them: trials need memory, too.
SPARE = 2.0


class BaseCache:
    """Loads base models, and keeps the one of the last trial; of two kinds the last two, where memory allows.

    Example:
        >>> cache = BaseCache(load_base)  # doctest: +SKIP
        >>> cache(base, ("art", "politics"), 0) is cache(base, ("art", "politics"), 0)  # doctest: +SKIP
        True
    """

    def __init__(self, load: Callable[..., LoadedBase], available: Callable[[], int] | None = None) -> None:
        self._load = load
        self._available = available or (lambda: int(psutil.virtual_memory().available))
        self._kept: dict[tuple[Any, ...], LoadedBase] = {}

    def __call__(self, *arguments: Any) -> LoadedBase:
        """A base model: kept, or loaded with these arguments. The others leave the device."""
        loaded = self._kept.pop(arguments, None)
        for key, other in list(self._kept.items()):
            other.frozen.drop()
            if next(other.model.parameters()).device.type != "cpu":
                del self._kept[key]  # a quantised one lives on the device itself
        if loaded is None:
            while self._kept and (len(self._kept) >= MOST_KEPT or not self._fits()):
                del self._kept[next(iter(self._kept))]
            loaded = self._load(*arguments)
        self._kept[arguments] = loaded  # the newest at the end
        return loaded

    def cache_clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def _fits(self) -> bool:
        """Whether memory has room for another one beside those that are kept."""
        sizes = [sum(p.nbytes for p in loaded.model.parameters()) for loaded in self._kept.values()]
        return self._available() >= SPARE * sum(sizes)
