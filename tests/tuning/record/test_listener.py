"""Listeners of a sweep: each hears everything, whatever another one does."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from lorasweep.tuning.record.listener import Listeners, StoreCopy, SweepListener
from lorasweep.tuning.record.results import SweepResult, Winner
from lorasweep.tuning.record.trial_records import TrialRecord

TRIAL = TrialRecord(id="t000", number=0)
WINNER = Winner.model_validate(
    {"id": "t000", "score": 0.9, "settings": {}, "test": {"accuracy": 0.9, "macro_f1": 0.9, "loss": 0.5}}
)
RESULT = SweepResult(state="finished", metric="accuracy")
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("phase", ("reading",)),
    ("begin", ({"name": "demo"}, [TRIAL])),
    ("update", (TRIAL,)),
    ("update", (TRIAL,)),
    ("waiting", ("t000 waits for 1 core",)),
    ("chosen", (WINNER,)),
    ("stopping", ()),
    ("end", (RESULT, {})),
]


class Heard:
    """Keeps all calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, arguments))


class Broken:
    """Fails whatever it is told."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"no {name}")


def test_a_listener_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is called again, and logged once; every public method of a listener is passed on."""
    heard: Any = Heard()
    broken: Any = Broken()
    with caplog.at_level(logging.WARNING, "lorasweep"):
        everyone = Listeners([broken, heard, SweepListener()])
        for name, arguments in CALLS:
            getattr(everyone, name)(*arguments)
    assert heard.calls == CALLS
    assert {name for name, _ in CALLS} == {name for name in vars(SweepListener) if not name.startswith("_")}
    assert caplog.messages == ["Broken.phase failed (no phase); the sweep goes on"]


def test_a_copy_is_recognised_by_what_it_can() -> None:
    class Copy(SweepListener):
        published = False

        def register(self, name: str) -> None: ...

    assert isinstance(Copy(), StoreCopy)
    assert not isinstance(SweepListener(), StoreCopy)
