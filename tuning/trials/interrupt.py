"""Ctrl-C during a sweep: the first one ends it cleanly, a second one at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def clean_stop(tell: Callable[[], None]) -> Iterator[None]:
    """Let Ray Tune save its state and end on the first Ctrl-C or SIGTERM; give up waiting on the next.

    Ray Tune ends its loop on SIGUSR1. Its own handler for Ctrl-C would do the same, but says nothing of how
    to go on. The handlers of before are back when the block ends.

    Args:
        tell: called on the first signal, to say that the sweep is stopping.

    Raises:
        KeyboardInterrupt: a second signal came, or one came before Ray Tune had begun to listen.
    """
    asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        # Ray puts this handler back when it hears of the first signal, so it has to count.
        if asked:
            raise KeyboardInterrupt
        asked = True
        # The signal may come in the middle of a print, and a stream refuses to be entered twice.
        with suppress(RuntimeError):
            tell()
        os.kill(os.getpid(), signal.SIGUSR1)

    def stop_at_once(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # Until Ray Tune listens: the system's own answer to this signal would be to kill the process.
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, stop_at_once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
