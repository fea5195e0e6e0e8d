"""Ctrl-C during a sweep: the first stops it cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def clean_stop(on_stop: Callable[[], None]) -> Iterator[None]:
    """Let Ray Tune end its loop on the first Ctrl-C or SIGTERM, and raise on the second.

    Ray Tune ends its loop on SIGUSR1. Its own handler for Ctrl-C would do the same, without telling the user how to
    continue. The previous handlers are restored when the block ends. Where there is no SIGUSR1 (Windows), and
    outside the main thread, which alone may set handlers, nothing changes: Ctrl-C raises at once.

    Args:
        on_stop: called on the first signal.

    Raises:
        KeyboardInterrupt: on a second signal, or on one before Ray Tune listens.
    """
    if not hasattr(signal, "SIGUSR1") or threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        # Ray restores this handler after the first signal, so it must tell the two apart itself.
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        # The signal may interrupt a print, and streams are not reentrant.
        with suppress(RuntimeError):
            on_stop()
        os.kill(os.getpid(), signal.SIGUSR1)

    def stop_at_once(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # Until Ray Tune listens, the default action of this signal would kill the process.
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, stop_at_once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
