"""A Ray of the sweep's own lets nobody else in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorasweep.tuning.trials.ray_access import MODE, TOKEN, guard_local_ray

ROOT = Path(__file__).parents[3]
DRIVER = """
import sys
from lorasweep.tuning.quiet import quiet_environment
from lorasweep.tuning.trials.ray_access import guard_local_ray
quiet_environment()
guard_local_ray(None)
assert "ray" not in sys.modules
from lorasweep.tuning.trials.cluster import start_ray
start_ray(None, 1)
import ray
assert ray.get(ray.remote(lambda: 5).remote()) == 5
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
STRANGER = "import ray; ray.init(address={!r}, logging_level='ERROR'); print('let in')"


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PYTHONPATH": str(ROOT)
    }


@pytest.mark.slow
def test_a_stranger_is_not_let_in() -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert driver.stdout is not None
        address = driver.stdout.readline().strip()
        assert address, driver.communicate()
        stranger = subprocess.run(
            [sys.executable, "-c", STRANGER.format(address)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert stranger.returncode != 0
        assert "let in" not in stranger.stdout
        out, err = driver.communicate("", timeout=60)
        assert driver.returncode == 0
        assert (out, err) == ("", "")
    finally:
        driver.kill()


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_a_program_may_have_imported_or_started_ray(own: bool) -> None:
    """Imported before, it asks for a token all the same; a Ray of the program's own is used and left running."""
    code = f"""
import os
import ray
if {own}:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
from lorasweep.tuning.trials.cluster import start_ray, stop_ray
from lorasweep.tuning.trials.ray_access import guard_local_ray
guard_local_ray(None)
start_ray(None, 1)
assert ray.get(ray.remote(lambda: 5).remote()) == 5
assert {own} or len(os.environ["{TOKEN}"]) == 64
stop_ray()
print(ray.is_initialized())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(own)


def test_what_a_user_or_a_cluster_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether another test has imported Ray, or started it, is of no matter here.
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for name in (MODE, TOKEN):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    guard_local_ray("auto")
    assert MODE not in os.environ
    monkeypatch.setenv(MODE, "disabled")
    guard_local_ray(None)
    assert os.environ[MODE] == "disabled"
    assert TOKEN not in os.environ
    monkeypatch.delenv(MODE)
    guard_local_ray(None)
    assert os.environ[MODE] == "token"
    assert len(os.environ[TOKEN]) == 64
