"""MLflow's pages on a database: a server on a free port, and none of its processes left when it ends."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType

from lorasweep.training.errors import LorasweepError, SettingsError
from lorasweep.tuning.tracking.store import artifact_root, set_environment

# MLflow's own; from there the next free one is looked for.
FIRST_PORT, TRIED_PORTS = 5000, 100
# Seconds that MLflow's processes have to end before they are killed, and between two looks at them.
GRACE, LOOK = 10.0, 0.2
# Where a server listens on all addresses, the one at which this machine finds it.
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def choose_port(host: str, port: int | None = None) -> int:
    """The port itself if it can be listened on; without one, the first free one from 5000.

    Raises:
        SettingsError: there is none: it is taken, no port at all, or not for this user, or the host is not this
            machine's.
    """
    if port is not None and not 0 < port < 65_536:
        raise SettingsError(f"--port {port}: not a port; they go from 1 to 65535")
    for number in range(FIRST_PORT, FIRST_PORT + TRIED_PORTS) if port is None else [port]:
        error = _refusal(host, number)
        if error is None:
            return number
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f"--host {host}: not an address of this machine")
        if error.errno != errno.EADDRINUSE:
            raise SettingsError(
                f"--port {number}: cannot be listened on at {host} ({error.strerror}); name another one"
            )
    if port is None:
        last = FIRST_PORT + TRIED_PORTS - 1
        raise SettingsError(
            f"ports {FIRST_PORT} to {last} of {host}: other programs have them all; name a free one with --port"
        )
    raise SettingsError(
        f"--port {port}: another program has it on {host}; name another one, or leave --port out for the next free one"
    )


def page_address(host: str, port: int) -> str:
    """The address for a browser on this machine."""
    name = LOOPBACK.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


class Interface:
    """MLflow's server, once it answers.

    Attributes:
        address: of its pages.
        stopped_by: the signal that asked this process to end.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.stopped_by: int | None = None
        self._process: subprocess.Popen[str] | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._answered = False

    def wait(self) -> int:
        """Wait until a signal ends this process: Ctrl-C, SIGTERM, or SIGHUP as the terminal is closed.

        Returns:
            The signal.

        Raises:
            LorasweepError: the server has ended by itself.
        """
        while self.stopped_by is None:
            self._look()
        return self.stopped_by

    def _start(self, command: list[str], host: str, port: int) -> None:
        # A session of its own: Ctrl-C in a terminal reaches a whole group of processes, and MLflow's server would
        # get it twice, once from its own parent, and break off with a traceback.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        while self.stopped_by is None and not _answers(LOOPBACK.get(host, host), port):
            self._look()
        self._answered = True

    def _look(self) -> None:
        time.sleep(LOOK)
        # MLflow's exit code is 0 even where its server could not start.
        if self.stopped_by is not None or self._process is None or self._process.poll() is None:
            return
        self._reader.join(GRACE)
        when = "while it served" if self._answered else "before it answered"
        last = next((line.strip() for line in reversed(self._said) if line.strip()), "no reason given")
        raise LorasweepError(f"MLflow's server has ended {when} ({last[:200]}); try again: lorasweep ui")

    def _read(self, process: subprocess.Popen[str]) -> None:
        # What it says before it answers belongs to its start, and is told only if that fails.
        assert process.stdout is not None
        for line in process.stdout:
            self._said.append(line)
            if self._answered and self.stopped_by is None:
                sys.stderr.write(line)

    def _end(self) -> None:
        if self._process is None:
            return
        if not hasattr(os, "killpg"):  # Windows
            self._process.terminate()
            return
        # The second time for a worker that outlived its parent, or had a request under way.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(OSError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)


@contextmanager
def serve(uri: str, mlruns: Path, host: str, port: int) -> Iterator[Interface]:
    """Serve MLflow's pages inside the block, which is entered once they answer.

    However the block is left, all of MLflow's processes end. Signals that would end this process meanwhile only
    set `stopped_by`, so call this from the main thread, and look at it, or `wait`.

    Args:
        uri: a database that `prepare_store` has passed.

    Raises:
        LorasweepError: the server has ended before it answered.
    """
    interface = Interface(page_address(host, port))

    def stop(number: int, frame: FrameType | None) -> None:
        interface.stopped_by = number

    # What this process was started to ignore, as with `nohup`, it goes on ignoring.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        try:
            interface._start(server_command(uri, mlruns, host, port), host, port)
            yield interface
        finally:
            interface._end()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def server_command(uri: str, mlruns: Path, host: str = "127.0.0.1", port: int = FIRST_PORT) -> list[str]:
    """The command that serves MLflow's pages on a database until it is stopped.

    It should inherit this process's environment, which is set here.

    Args:
        host: address to listen on; only this machine reaches the default.
    """
    set_environment()
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    artifacts = str(artifact_root(mlruns))
    listen = ["--host", host, "--port", str(port), "--workers", "1"]
    # A line about each request would bury the links.
    log = ["--uvicorn-opts", "--log-level warning"]
    stores = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    # Both are named, else files are put into the current folder.
    roots = ["--default-artifact-root", artifacts, "--artifacts-destination", artifacts]
    return [sys.executable, "-m", "mlflow", "server", *listen, *log, *stores, *roots]


def _refusal(host: str, port: int) -> OSError | None:
    """Why nobody can listen there now, or None."""
    try:
        places = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error
    except UnicodeError:  # a name with too long a part
        return OSError(errno.EADDRNOTAVAIL, "not a name")
    free, absent = False, None
    for family, kind, protocol, _, place in places:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As the server does: a port whose last user has just gone is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(place)
            free = True
        except OSError as error:
            # `localhost` may stand for an address of IPv6 where that is switched off.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return error
            absent = error
    return None if free else absent


def _answers(host: str, port: int) -> bool:
    connection = HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
