"""What is said of trials that do not start."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from lorasweep.tuning.trials import waiting as module
from lorasweep.tuning.trials.waiting import Holder, Room, StartWatch, waiting_text

OTHER = Holder("python train.py", 2)
FULL, SMALL = Room("10.0.0.2", 2), Room("10.0.0.1", 1)


@pytest.mark.parametrize(
    ("waiting", "needs", "rooms", "holders", "text"),
    [
        (
            ["t000"],
            (2, 0),
            [FULL, SMALL],
            [OTHER],
            "t000 waits for 2 cores: 10.0.0.2 has 0 of 2 cores free; python train.py (2 cores) has it",
        ),
        (
            ["t000", "t001"],
            (1, 0),
            [FULL, SMALL],
            [Holder("a", 1), Holder("b", 0, 1), Holder("sweep", 2, own=True, parts=1)],
            "t000 and t001 wait for 1 core: 10.0.0.2 has 0 of 2 cores free and 10.0.0.1 has 0 of 1 cores free; "
            "b (1 GPU) and a (1 core) have it",
        ),
        (
            ["t000"],
            (4, 0.5),
            [Room("10.0.0.2", 8, 2, 8, 0.4), Room("10.0.0.3", 64, 0, 64)],
            [],
            "t000 waits for 0.5 GPU and 4 cores: 10.0.0.2 has 8 of 8 cores and 0.4 of 2 GPUs free; other tasks of "
            "the cluster have it: see: ray status",
        ),
        (["t000"], (1, 0), [], [], "t000 waits for 1 core: no node yet; see: ray status"),
        (
            ["t000"],
            (4, 0),
            [FULL, SMALL],
            [OTHER],
            "t000 waits for 4 cores: no node has that much; see: ray status",
        ),
        (
            ["t002"],
            (1, 0),
            [Room("10.0.0.2", 2)],
            [Holder("sweep", 2, own=True, parts=2)],
            "t002 waits for 1 core: reserved; the processes are starting, and their first imports can take a minute",
        ),
        (
            ["t002"],
            (1, 0),
            [Room("10.0.0.2", 2, 0, 1)],
            [],
            "t002 waits for 1 core: 10.0.0.2 has that free, and Ray is about to start there; see: ray status",
        ),
    ],
)
def test_one_line_says_what_for_and_who_has_it(
    waiting: list[str], needs: tuple[float, float], rooms: list[Room], holders: list[Holder], text: str
) -> None:
    assert waiting_text(waiting, 1, *needs, rooms, holders) == text


def test_a_large_cluster_is_not_listed() -> None:
    rooms = [Room(f"10.0.0.{number}", 2) for number in range(9)]
    text = waiting_text(["t000"], 0, 1, 0, rooms, [Holder("python " + "x" * 90, 18)])
    assert "10.0.0.2 has 0 of 2 cores free and 6 more; python xxx" in text
    assert "x... (18 cores) has it" in text
    assert len(text) < 200


class Clock:
    """Stands still unless it is moved."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def trial(number: int, status: str) -> Any:
    return SimpleNamespace(status=status, config={"number": number})


def test_it_is_told_after_half_a_minute_and_taken_back_when_a_trial_starts(clock: Clock) -> None:
    told: list[str] = []
    watch = StartWatch(told.append, 1, 0, lambda: ([FULL], [OTHER]))
    trials = [trial(0, Trial.RUNNING), trial(1, Trial.PENDING)]

    def step(seconds: float) -> None:
        clock.now += seconds
        watch.on_step_end(0, trials)
        if watch._thread is not None:
            watch._thread.join()

    for seconds in (0, 29, 0.5):
        step(seconds)
    assert told == []
    for _ in range(3):
        step(0.5)
    line = "t001 waits for 1 core: 10.0.0.2 has 0 of 2 cores free; python train.py (2 cores) has it"
    assert told == [line]
    step(40)
    step(0.1)
    assert told == [line], "the same is not said twice"
    trials[1].status = Trial.RUNNING
    watch.on_trial_start(0, trials, trials[1])
    assert told == [line, ""]
    trials.append(trial(2, Trial.PENDING))
    step(0)
    step(29)
    assert told == [line, ""], "the next one waits since it was proposed"
    trials[2].status = Trial.TERMINATED
    step(60)
    step(60)
    assert told == [line, ""]


def test_a_head_that_does_not_answer_holds_up_nobody(clock: Clock) -> None:
    """Ray waits for its head for a minute, in native code."""
    gone = threading.Event()

    def look() -> tuple[list[Room], list[Holder]]:
        assert gone.wait(10)
        raise RuntimeError("no head")

    watch = StartWatch(lambda text: pytest.fail(text), 1, 0, look)
    for _ in range(4):
        clock.now += 31
        watch.on_step_end(0, [trial(0, Trial.PENDING)])
    gone.set()
    assert watch._thread is not None
    watch._thread.join()
    watch.on_step_end(0, [trial(0, Trial.PENDING)])
