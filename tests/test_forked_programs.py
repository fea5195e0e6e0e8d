"""Forked programs behave as those that Python starts, and a block ends them with what they have started."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from forked_programs import ForkedProcess, fork_program
from whole_sweeps import ENVIRONMENT, ending, lorasweep, new_interpreter

REPORT = """
import json, os, sys
print(json.dumps([__name__, sys.argv[1:], sys.path[0], os.getcwd(), os.environ["COLUMNS"]]))
print("to standard error", file=sys.stderr)
assert os.getpgid(0) == os.getpid()
sys.stdin.read()
sys.exit(3)
"""
SLEEPER = """
import sys, time
try:
    print("up", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""
PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def forked(place: Path, code: str, *arguments: str) -> ForkedProcess:
    (place / "program.py").write_text(code)
    return fork_program(place, [str(place / "program.py"), *arguments], ENVIRONMENT)


def test_a_program_runs_as_python_would_run_it(tmp_path: Path) -> None:
    told = []
    for process in (
        forked(tmp_path, REPORT, "one", "two"),
        new_interpreter(tmp_path, [str(tmp_path / "program.py"), "one", "two"]),
    ):
        with ending(process):
            out, err = process.communicate(timeout=120)
        told.append((process.returncode, json.loads(out), err))
    assert told[0] == told[1]
    assert told[0] == (
        3,
        ["__main__", ["one", "two"], str(tmp_path), str(tmp_path), "80"],
        "to standard error\n",
    )


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", -15), ("SIGKILL", -9)])
def test_signals_reach_it(number: str, code: int, tmp_path: Path) -> None:
    with ending(forked(tmp_path, SLEEPER)) as process:
        assert process.stdout.readline() == "up\n"
        assert process.poll() is None
        process.send_signal(getattr(signal, number))
        assert process.wait(timeout=60) == code
        assert process.poll() == code


def test_the_command_line_is_such_a_program(tmp_path: Path) -> None:
    out, err = lorasweep(tmp_path, "status", "nothing", code=2)
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("lorasweep: ")


@pytest.mark.parametrize("fork", [True, False])
def test_nothing_outlives_a_block_that_fails(fork: bool, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PARENT)
    command = [str(tmp_path / "program.py")]
    process = fork_program(tmp_path, command, ENVIRONMENT) if fork else new_interpreter(tmp_path, command)
    child = None
    with suppress(ZeroDivisionError), ending(process):
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        raise ZeroDivisionError
    assert child is not None
    assert not psutil.pid_exists(process.pid)
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
