"""Ends a sweep whose cluster has lost its head, before Ray ends the process without a word."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lorasweep.training.errors import SweepStoppedError

# Ray ends each process that has not heard of the head for so many seconds, whoever's it is, without a chance to write.
RAY_PATIENCE = float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60"))  # noqa: SIM112
# Seconds before that, for the end of the sweep.
TO_END = 25.0
# Seconds in which whatever waits for the head has to hear of it, or the process is given up.
TO_HEAR = 8.0
# Seconds between two looks, and to answer.
LOOK = 5.0
ANSWER = 5.0


class HeadLost(BaseException):
    """The head is gone. No `Exception`: Ray Tune would take it for a trial's."""


class LostClusterError(SweepStoppedError):
    """The line that a sweep ends with. Whoever ends the process should do so at once: Ray's exit waits for the head."""


def lost_after() -> float:
    """Seconds without an answer after which the head counts as lost."""
    return max(RAY_PATIENCE - TO_END, 2 * LOOK)


def answers(address: str) -> bool:
    """Whether a cluster's head listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except OSError:
        return False
    return True


class HeadWatch:
    """A thread that looks whether the head answers, and calls once when it has not for too long.

    Args:
        lost: called in the watch's thread.
        deaf: called there, too, if the watch is not stopped within `TO_HEAR`.
        answers: whether the head answers now.

    Attributes:
        gone: the head has been given up.
    """

    def __init__(
        self, lost: Callable[[], None], deaf: Callable[[], None], answers: Callable[[], bool]
    ) -> None:
        self._lost, self._deaf, self._answers = lost, deaf, answers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="head", daemon=True)
        self.gone = False

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; nothing is called after this."""
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._over.wait(LOOK):
            if self._answers():
                last = time.monotonic()
            elif time.monotonic() - last >= lost_after():
                self.gone = True
                if not self._over.is_set():
                    self._lost()
                if not self._over.wait(TO_HEAR):
                    self._deaf()
                return

    def given_up(self) -> bool:
        """Whether the head is gone, asked because something has failed. Waits as long as it might come back."""
        while not self.gone and not self._over.is_set() and not self._answers():
            if not self._thread.is_alive():
                return self.gone
            time.sleep(LOOK / 5)
        return self.gone


@contextmanager
def head_watched(
    address: str | None, name: str, how_to_go_on: str, give_up: Callable[[SweepStoppedError], None]
) -> Iterator[None]:
    """Let what is done in the block end with one line if the cluster loses its head.

    The line comes within a minute. Whatever the block waits for is interrupted: in the main thread by a signal, in
    another one by an exception at its next line of Python.

    Args:
        address: of the head; None on a machine of its own, whose Ray ends with the process.
        name: of the sweep.
        how_to_go_on: a command.
        give_up: called, in another thread, where the block hangs in Ray's native code, from which nothing brings it
            back: Ray is about to end the process.

    Raises:
        LostClusterError: the head is gone.
    """
    if address is None:
        yield
        return
    caller = threading.get_ident()
    by_signal = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGUSR2")
    armed = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if armed:
            raise HeadLost

    def lost() -> None:
        if by_signal:
            signal.pthread_kill(caller, signal.SIGUSR2)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(HeadLost))

    stopped = LostClusterError(
        f"sweep {name}: the head of the cluster at {address} is gone; what was done is on record. When there is a "
        f"cluster again: {how_to_go_on}"
    )
    watch = HeadWatch(lost, lambda: give_up(stopped), lambda: answers(address))
    before = signal.signal(signal.SIGUSR2, interrupt) if by_signal else None
    watch.start()
    try:
        yield
    except HeadLost as error:
        raise stopped from error
    except Exception as error:
        # What failed may have done so because of that: Ray's calls, or the trials on the head's machine.
        try:
            gone = watch.given_up()
        except HeadLost:
            gone = True
        if gone:
            raise stopped from error
        raise
    finally:
        armed = False
        watch.stop()
        if not by_signal:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), None)
        else:
            signal.signal(signal.SIGUSR2, before)
