"""Which base models a worker keeps from trial to trial."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from lorasweep.tuning.trials.base_cache import BaseCache


def cache(available: int, loads: list[str], dropped: list[str]) -> BaseCache:
    """A cache of models of 400 bytes, and what it loads and takes from the device."""

    def load(name: str) -> Any:
        loads.append(name)
        model = nn.ParameterList([nn.Parameter(torch.zeros(100))])
        return SimpleNamespace(model=model, frozen=SimpleNamespace(drop=lambda: dropped.append(name)))

    return BaseCache(load, lambda: available)


def test_the_last_two_are_kept_and_only_the_one_in_use_on_the_device() -> None:
    loads: list[str] = []
    dropped: list[str] = []
    kept = cache(10_000, loads, dropped)
    assert kept("a") is kept("a")
    kept("b")
    assert (loads, dropped) == (["a", "b"], ["a"])
    kept("a")
    assert (loads, dropped) == (["a", "b"], ["a", "b"])
    kept("c")  # the oldest, b, goes
    kept("a")
    assert loads == ["a", "b", "c"]
    kept("b")
    assert loads == ["a", "b", "c", "b"]


def test_where_memory_is_short_one_is_kept() -> None:
    loads: list[str] = []
    kept = cache(799, loads, [])  # 800 have to be free beside the first
    for name in ("a", "b", "b", "a"):
        kept(name)
    assert loads == ["a", "b", "a"]
    kept.cache_clear()
    kept("a")
    assert loads[-2:] == ["a", "a"]
