"""A sweep whose cluster loses its head ends with one line, whatever it waits for."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from lorasweep.training.errors import SweepStoppedError, TrainingError
from lorasweep.tuning.trials import head as module
from lorasweep.tuning.trials.head import (
    RAY_PATIENCE,
    HeadWatch,
    LostClusterError,
    answers,
    head_watched,
    lost_after,
)


class Head:
    """A head that a test kills and brings back."""

    alive = True

    def answers(self, address: str) -> bool:
        assert address == "10.0.0.1:6379"
        return self.alive


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Head:
    """Looked at every 20 ms, and given up after 200."""
    head = Head()
    monkeypatch.setattr(module, "LOOK", 0.02)
    monkeypatch.setattr(module, "TO_HEAR", 0.3)
    monkeypatch.setattr(module, "lost_after", lambda: 0.2)
    monkeypatch.setattr(module, "answers", head.answers)
    return head


def watched(
    do: Callable[[], None],
    give_up: Callable[[SweepStoppedError], None] = lambda stopped: pytest.fail("heard"),
) -> None:
    with head_watched("10.0.0.1:6379", "demo", "lorasweep resume demo --address HOST:PORT", give_up):
        do()


LINE = (
    r"^sweep demo: the head of the cluster at 10.0.0.1:6379 is gone; .* on record\. .*: lorasweep resume demo "
    r"--address HOST:PORT$"
)


def test_a_head_is_given_up_before_ray_ends_the_process() -> None:
    """Within a minute, with time for the record's end; after a look or two at least."""
    assert 20 <= lost_after() <= RAY_PATIENCE - 20


def test_whatever_is_waited_for_ends(head: Head) -> None:
    before, begun = signal.getsignal(signal.SIGUSR2), time.monotonic()
    head.alive = False
    with pytest.raises(SweepStoppedError, match=LINE):
        watched(lambda: time.sleep(30))
    assert time.monotonic() - begun < 10
    assert signal.getsignal(signal.SIGUSR2) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "head"]


def test_it_ends_outside_the_main_thread_too(head: Head) -> None:
    """As in a program that runs a sweep beside other things; only the main thread takes signals."""
    head.alive = False
    ended: list[BaseException] = []

    def loop() -> None:
        while True:
            time.sleep(0.01)

    def run() -> None:
        try:
            watched(loop)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert [type(error) for error in ended] == [LostClusterError]


def test_what_hangs_in_native_code_is_given_up(head: Head) -> None:
    """There no signal is heard. The main thread, which a signal's mask makes deaf here, can do nothing any more."""
    head.alive = False
    told: list[SweepStoppedError] = []
    done = threading.Event()

    def give_up(stopped: SweepStoppedError) -> None:
        told.append(stopped)
        done.set()

    def hang() -> None:
        assert done.wait(10)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        watched(hang, give_up)
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    assert re.match(LINE, str(told[0]))


def test_what_fails_because_of_that_is_not_the_reason(head: Head) -> None:
    """Ray's calls may fail before the head is given up, and so may all trials on its machine."""
    head.alive = False

    def fail() -> None:
        raise TrainingError("3 trials in a row failed")

    with pytest.raises(SweepStoppedError, match=LINE):
        watched(fail)


def test_a_head_that_comes_back_ends_nothing(head: Head) -> None:
    def away() -> None:
        time.sleep(0.3)
        head.alive = False
        time.sleep(0.08)
        head.alive = True
        time.sleep(0.4)

    watched(away)

    def fail() -> None:
        raise TrainingError("3 trials in a row failed")

    with pytest.raises(TrainingError, match="3 trials"):
        watched(fail)

    def fail_before_it_is_back() -> None:
        head.alive = False
        threading.Timer(0.06, lambda: setattr(head, "alive", True)).start()
        fail()

    with pytest.raises(TrainingError, match="3 trials"):
        watched(fail_before_it_is_back)


def test_a_machine_of_its_own_is_not_watched() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with head_watched(None, "demo", "", lambda stopped: None):
        assert signal.getsignal(signal.SIGUSR2) is before


def test_nothing_is_called_once_it_is_stopped() -> None:
    watch = HeadWatch(lambda: pytest.fail("called"), lambda: pytest.fail("called"), lambda: True)
    watch.start()
    watch.stop()
    assert not watch.gone


def test_whether_a_head_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert answers(address)
    assert not answers(address)
