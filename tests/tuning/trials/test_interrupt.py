"""Ctrl-C as the driver of a sweep meets it, with Ray Tune's own handler."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from io import StringIO

import pytest
from ray.tune.tune import _setup_signal_catching
from rich.console import Console

from lorasweep.tuning.terminal.progress import LogDisplay
from lorasweep.tuning.trials import interrupt
from lorasweep.tuning.trials.interrupt import clean_stop, hold_interrupt

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], threading.Event]:
    """Ray Tune begins to listen, as a sweep has it; the event tells its loop to end."""
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "1")
    return _setup_signal_catching  # type: ignore[no-any-return]


def send(number: int) -> None:
    """To this process; Python runs the handler before the next line."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_rays_loop_and_the_second_ends_at_once(
    number: int, listen: Callable[[], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once; the handlers of before are back afterwards."""
    before = [signal.getsignal(each) for each in SIGNALS]
    told: list[str] = []
    with clean_stop(lambda: told.append("stopping")):
        ends = listen()
        send(number)
        assert ends.is_set()
        send(number)  # `timeout` sends its signal twice
        assert told == ["stopping"]
        monkeypatch.setattr(interrupt, "ONE_SIGNAL", 0.0)
        with pytest.raises(KeyboardInterrupt):
            send(number)
    assert told == ["stopping"]
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_signal_before_ray_listens_waits_until_it_does(listen: Callable[[], threading.Event]) -> None:
    """Raised in the middle of Ray's preparations, the interrupt may get lost there."""
    with clean_stop(lambda: None):
        send(signal.SIGINT)
        assert listen().wait(10)


def test_a_signal_that_ray_never_hears_does_not_kill_the_process() -> None:
    """The sweep is written down as interrupted instead."""
    reached: list[str] = []

    def never_listens() -> None:
        with clean_stop(lambda: None):
            send(signal.SIGINT)
            reached.append("end")

    with pytest.raises(KeyboardInterrupt):
        never_listens()
    assert reached == ["end"]


def test_ctrl_c_waits_until_ray_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even twice at once, as from `timeout`; a second one a moment later does not wait."""
    before = signal.getsignal(signal.SIGINT)
    reached: list[str] = []

    def start() -> None:
        with hold_interrupt():
            send(signal.SIGINT)
            reached.append("first")
            send(signal.SIGINT)
            reached.append("end")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached == ["first", "end"]
    monkeypatch.setattr(interrupt, "ONE_SIGNAL", 0.0)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached == ["first", "end", "first"]
    with hold_interrupt():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_in_the_middle_of_a_line(listen: Callable[[], threading.Event]) -> None:
    """What is being printed by this very thread neither blocks the handler nor breaks it."""
    file = StringIO()
    display = LogDisplay(Console(file=file, width=80))
    with clean_stop(display.stopping):
        ends = listen()
        with display._lock:
            send(signal.SIGINT)
        assert ends.is_set()
    assert "stopping; Ctrl-C again to stop at once" in file.getvalue()

    def entered_twice() -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    with clean_stop(entered_twice):
        ends = listen()
        send(signal.SIGINT)
        assert ends.is_set()


@pytest.mark.parametrize("why", ["thread", "system"])
def test_where_no_handler_can_be_set_nothing_changes(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the main thread, and on a system without the signal that Ray Tune listens to."""
    handlers: list[object] = []

    def enter() -> None:
        with clean_stop(lambda: None):
            handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    if why == "thread":
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    else:
        monkeypatch.delattr(signal, "SIGUSR1")
        enter()
    assert handlers == [before]
