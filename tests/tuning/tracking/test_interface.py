"""MLflow's pages: on a port that is free, told once they answer, and gone with all their processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow_servers import answers, free_port
from whole_sweeps import ROOT, ending, started

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.tracking import interface
from lorasweep.tuning.tracking.interface import choose_port, page_address, server_command
from lorasweep.tuning.tracking.store import connect, prepare_store, tracking_store

# Serves the folder DIRECTORY, in place of MLflow's server: a parent and a worker, which does not listen to SIGTERM.
STAND_IN = """
import http.server, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if os.fork():
    os.wait()
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("noise of its start", flush=True)
    open("worker", "w").write(str(os.getpid()))
    open("health", "w").write("OK")
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
DRIVER = """
import sys
from pathlib import Path
from lorasweep.tuning.tracking import interface
interface.GRACE = 0.5
interface.server_command = lambda *_: [sys.executable, "-c", Path("stand_in.py").read_text(), sys.argv[1]]
with interface.serve("sqlite:///x.db", Path("."), "127.0.0.1", int(sys.argv[1])) as served:
    print(served.address, flush=True)
    sys.exit(128 + served.wait())
"""


@pytest.fixture
def taken() -> Any:
    """A port on loopback where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def refusal(host: str, port: int | None) -> str:
    with pytest.raises(SettingsError) as caught:
        choose_port(host, port)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_port_that_is_taken_is_refused_or_passed_over(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"--port {taken}: another program has it" in refusal("127.0.0.1", taken)
    monkeypatch.setattr(interface, "FIRST_PORT", taken)
    assert taken < choose_port("127.0.0.1") < taken + interface.TRIED_PORTS
    monkeypatch.setattr(interface, "TRIED_PORTS", 1)
    assert "name a free one with --port" in refusal("127.0.0.1", None)
    free = free_port()
    assert choose_port("127.0.0.1", free) == free


@pytest.mark.parametrize("port", [0, -1, 65_536, 99_999])
def test_what_is_no_port_is_refused(port: int) -> None:
    assert f"--port {port}: not a port" in refusal("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.invalid", "x" * 70])
def test_a_host_must_be_this_machines(host: str) -> None:
    assert refusal(host, 5000) == f"--host {host}: not an address of this machine"


def test_links_lead_to_this_machine() -> None:
    assert page_address("0.0.0.0", 5000) == "http://127.0.0.1:5000"
    assert page_address("::", 5000) == "http://[::1]:5000"
    assert page_address("localhost", 5001) == "http://localhost:5001"


def test_the_server_listens_on_loopback(tmp_path: Path) -> None:
    command = server_command("sqlite:///x.db", tmp_path)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert command[command.index("--host") + 1] == "127.0.0.1"


def drive(place: Path, port: int, stand_in: str = STAND_IN) -> subprocess.Popen[str]:
    (place / "stand_in.py").write_text(stand_in)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(port)],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_process_ends_with_the_command(tmp_path: Path, number: signal.Signals) -> None:
    """As Ctrl-C in a terminal does it, which reaches the whole group, and as `kill` does it."""
    port = free_port()
    with ending(drive(tmp_path, port)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"http://127.0.0.1:{port}\n"
        assert answers(f"http://127.0.0.1:{port}/health"), "it is told before it answers"
        worker = int((tmp_path / "worker").read_text())
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, "")
    assert "noise" not in err
    assert "Traceback" not in err
    assert not alive(worker)


def test_a_signal_before_it_answers_ends_it_too(tmp_path: Path) -> None:
    silent = "import os, time; open('worker', 'w').write(str(os.getpid())); time.sleep(600)"
    with ending(drive(tmp_path, free_port(), silent)) as process:
        while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "")
    assert not alive(int((tmp_path / "worker").read_text()))


def test_a_server_that_ends_by_itself_is_an_error_of_one_line(tmp_path: Path) -> None:
    """MLflow's exit code is 0 when its server cannot start."""
    broken = "print('Traceback (most recent call last):\\n  ...\\nOSError: no'); exit(0)"
    with ending(drive(tmp_path, free_port(), broken)) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1].endswith(
        "LorasweepError: MLflow's server has ended before it answered (OSError: no); try again: lorasweep ui"
    )


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as response:
        return bytes(response.read())


@pytest.mark.slow
def test_the_interface_shows_runs_and_artifacts(tmp_path: Path) -> None:
    """MLflow's own server, as the command starts it and a service manager ends it."""
    mlruns = tmp_path / "mlruns"
    uri = tracking_store(None, mlruns)
    prepare_store(uri, mlruns)
    client = connect(uri)
    experiment = client.create_experiment("lorasweep", str(mlruns / "artifacts" / "lorasweep"))
    run_id = client.create_run(experiment, run_name="demo").info.run_id
    client.log_text(run_id, "{}", "adapter/adapter_config.json")

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with started(tmp_path, "ui", "--port", str(port)) as process:
        assert process.stdout is not None
        assert address in process.stdout.readline()
        assert b"<html" in get(address)
        (run,) = connect(address).search_runs([experiment])
        assert (run.info.run_id, run.info.run_name) == (run_id, "demo")
        listed: dict[str, Any] = json.loads(
            get(f"{address}/ajax-api/2.0/mlflow/artifacts/list?run_id={run_id}&path=adapter")
        )
        assert [entry["path"] for entry in listed["files"]] == ["adapter/adapter_config.json"]
        assert get(f"{address}/get-artifact?run_uuid={run_id}&path=adapter/adapter_config.json") == b"{}"
        below = psutil.Process(process.pid).children(recursive=True)
        assert len(below) >= 2
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "")
    assert not [child for child in below if alive(child.pid)]
    assert {path.name for path in tmp_path.iterdir()} == {"mlruns"}
    with pytest.raises(OSError, match="refused"):
        get(f"{address}/health")
