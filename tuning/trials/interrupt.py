"""Ctrl-C during a sweep: the first stops it cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# `timeout` sends its signal twice, to the process and to its group; nobody presses Ctrl-C twice as fast.
ONE_SIGNAL = 0.5
# Seconds between two looks whether Ray Tune listens.
LOOK = 0.1


@contextmanager
def hold_interrupt() -> Iterator[None]:
    """Let a first Ctrl-C wait until the block has ended.

    For native code that starts threads and processes, as Ray does: interrupted half-way it may lose the signal, or
    crash as Python exits. Outside the main thread nothing changes.

    Raises:
        KeyboardInterrupt: at the end of the block, or at once on a second Ctrl-C.
    """
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    first: float | None = None

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > ONE_SIGNAL:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if first is not None:
        raise KeyboardInterrupt


@contextmanager
def clean_stop(on_stop: Callable[[], None]) -> Iterator[None]:
    """Let Ray Tune end its loop on the first Ctrl-C or SIGTERM, and raise on the second.

    Ray Tune ends its loop on SIGUSR1. Its own handler for Ctrl-C would do the same, without telling the user how to
    continue. A signal that comes before Ray Tune listens waits until it does. The previous handlers are restored
    when the block ends. Where there is no SIGUSR1 (Windows), and outside the main thread, which alone may set
    handlers, nothing changes: Ctrl-C raises at once.

    Args:
        on_stop: called on the first signal.

    Raises:
        KeyboardInterrupt: on a second signal, or at the end of the block if Ray Tune never listened.
    """
    if not hasattr(signal, "SIGUSR1") or threading.current_thread() is not threading.main_thread():
        yield
        return
    first: float | None = None
    over = threading.Event()

    def listens() -> bool:
        return signal.getsignal(signal.SIGUSR1) is not wait

    def wait(number: int, frame: FrameType | None) -> None:
        """Until Ray Tune listens, the default action of this signal would kill the process."""

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first
        # Ray restores this handler after the first signal, so it must tell the two apart itself.
        if first is not None:
            if time.monotonic() - first > ONE_SIGNAL:
                raise KeyboardInterrupt
            return
        first = time.monotonic()
        # The signal may interrupt a print, and streams are not reentrant.
        with suppress(RuntimeError):
            on_stop()
        if listens():
            os.kill(os.getpid(), signal.SIGUSR1)

    def pass_on() -> None:
        while not over.wait(LOOK):
            if listens():
                if first is not None:
                    os.kill(os.getpid(), signal.SIGUSR1)
                return

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, wait)
    watcher = threading.Thread(target=pass_on, name="interrupt", daemon=True)
    watcher.start()
    unheard = True
    try:
        yield
        unheard = not listens()
    finally:
        # First: the watcher must not send a signal when its default action is back.
        over.set()
        watcher.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    if unheard and first is not None:
        raise KeyboardInterrupt
