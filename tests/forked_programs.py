"""Programs without their imports, which take 10 s and more of a core: forked from a process that has done them.

A forked program is otherwise what a terminal starts: a process and a group of its own, with its own environment,
working directory and output, that signals end, and whose interpreter ends as any other.

Run as a program, this file is the process that forks, which ends with the one that started it.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
FLOORS = ("lorasweep", "training", "search_spaces", "tuning")
# What the floors import where they need it.
LIBRARIES = (
    *("ray.tune", "optuna", "peft", "plotly.graph_objs", "sklearn.linear_model"),
    *("transformers.models.bert.modeling_bert", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"),
)


class ForkedProcess:
    """What `subprocess.Popen` is to a process, as far as the tests need it.

    Args:
        pid: of the process, which is not a child of this one.
        status: a pipe that gives its return code once it has ended.
        stdout: what it prints there.
        stderr: what it prints there.
    """

    def __init__(self, pid: int, status: int, stdout: IO[str], stderr: IO[str]) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._status = status
        self._read: dict[IO[str], str] = {}
        self._readers: list[threading.Thread] = []

    def wait(self, timeout: float | None = None) -> int:
        """Its return code; negative if a signal has ended it."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("lorasweep", timeout or 0.0)
            self.returncode = int(os.read(self._status, 100))
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        """Its return code; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it has printed that nobody has read."""
        if not self._readers:
            self._readers = [
                threading.Thread(target=self._drain, args=(pipe,), daemon=True)
                for pipe in (self.stdout, self.stderr)
                if not pipe.closed
            ]
            for reader in self._readers:
                reader.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        for reader in self._readers:
            reader.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired("lorasweep", timeout or 0.0)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._read.get(self.stdout, ""), self._read.get(self.stderr, "")

    def send_signal(self, number: int) -> None:
        """Nothing, if it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _drain(self, pipe: IO[str]) -> None:
        with pipe:
            self._read[pipe] = pipe.read()


def fork_program(place: Path, arguments: Sequence[str], environment: dict[str, str]) -> ForkedProcess:
    """Run a Python program, or a module after `-m`, in a folder.

    For each environment there is a process that forks, which takes 10 s to start and 700 MB: use one.
    """
    server = _server(json.dumps(environment))
    pipes = [os.pipe() for _ in range(3)]
    given = {"place": str(place), "arguments": list(arguments)}
    socket.send_fds(server, [json.dumps(given).encode()], [writer for _, writer in pipes])
    for _, writer in pipes:
        os.close(writer)
    pid = server.recv(100)
    assert pid, "the process that forks has ended"
    (out, err, status) = (reader for reader, _ in pipes)
    return ForkedProcess(int(pid), status, *(os.fdopen(end, encoding="utf-8") for end in (out, err)))


@cache
def _server(environment: str) -> socket.socket:
    """The line to the process that forks. Libraries keep what they read when they are imported."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, __file__, str(there.fileno())],
        env=json.loads(environment),
        stdin=subprocess.DEVNULL,
        pass_fds=[there.fileno()],
        start_new_session=True,
    )
    there.close()
    return here


def import_all() -> None:
    """Import lorasweep and its libraries, as quietly as it does."""
    from lorasweep.tuning.quiet import quiet_environment

    quiet_environment()
    for name in LIBRARIES:
        import_module(name)
    for path in (path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] in ("__main__", "serving"):  # the one is a program, the other what MLflow serves
            continue
        with suppress(ImportError):  # of an extra that is not installed
            import_module(".".join(parts if parts[0] == "lorasweep" else ("lorasweep", *parts)))


def next_arguments(line: socket.socket) -> list[str]:
    """Fork at each request, and return in the new process: what follows `python` there."""
    running: dict[int, int] = {}  # process → where its return code goes
    while True:
        # Looks after those that run 20 times a second.
        asked = select.select([line], [], [], 0.05 if running else None)[0]
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with suppress(BrokenPipeError):  # whoever asked has gone
                    os.write(running[pid], str(os.waitstatus_to_exitcode(status)).encode())
                os.close(running.pop(pid))
        if not asked:
            continue
        request, (out, err, code) = _received(line)
        pid = os.fork()
        if not pid:
            line.close()
            for pipe in (*running.values(), code):
                os.close(pipe)
            os.setsid()
            os.chdir(request["place"])
            for pipe, number in ((out, 1), (err, 2)):
                os.dup2(pipe, number)
                os.close(pipe)
            # They know what they write to, and that has changed.
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
            return list(request["arguments"])
        os.close(out)
        os.close(err)
        running[pid] = code
        line.send(str(pid).encode())


def _received(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A request, and the pipes for output, errors and return code; this process ends if nobody can ask any more."""
    request, pipes, _, _ = socket.recv_fds(line, 1 << 20, 3)
    if not request:
        raise SystemExit
    return json.loads(request), pipes


if __name__ == "__main__":
    # This file's own folder is none in which a command looks for modules.
    del sys.path[0]
    import_all()
    assert threading.active_count() == 1, "a thread does not come along into a forked process"
    gc.collect()
    gc.freeze()
    first, *rest = next_arguments(socket.socket(fileno=int(sys.argv[1])))
    if first == "-m":
        sys.argv = rest
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")
