"""The package as a user installs it: a wheel, in an environment of its own, beside files of the user's own."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from whole_sweeps import RUN

ROOT = Path(__file__).parents[1]
FLOORS = ("training", "search_spaces", "tuning")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what git has, or would have; built outside the checkout, which keeps no trace of it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in sources():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", out, source], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def sources() -> list[str]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def test_the_wheel_holds_every_package_and_data_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    floors = {f"lorasweep/{name}" for name in sources() if name.startswith(tuple(f"{f}/" for f in FLOORS))}
    face = {name for name in sources() if name.startswith("lorasweep/")}
    assert len(floors) > 100
    assert {name for name in floors | face if not name.endswith("README.md")} <= held
    # Nothing of ours stands beside the package, where a user's own folder may have the same name.
    assert {name.partition("/")[0] for name in held if ".dist-info/" not in name} == {"lorasweep"}


@pytest.mark.slow
def test_a_sweep_beside_files_of_the_same_names(wheel: Path, place: Path, tmp_path: Path) -> None:
    """Ray imports from the driver's working directory first: a user's `training.py` there is not ours."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    libraries = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    # The dependencies are those of the tests; an editable install of lorasweep is not seen through a `.pth` file.
    (libraries / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    zipfile.ZipFile(wheel).extractall(libraries)
    python = tmp_path / "venv" / "bin" / "python"

    work = tmp_path / "work"
    work.mkdir()
    for name in ("rows.csv", "base"):
        (work / name).symlink_to(place / name)
    trap = f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\nraise SystemExit('not ours')\n"
    (work / "training.py").write_text(trap)
    (work / "search_spaces.py").write_text(trap)
    (work / "tuning").mkdir()
    (work / "tuning" / "__init__.py").write_text(trap)

    where = "import lorasweep.tuning.sweep.run as run; print(run.__file__)"
    shown = subprocess.run([python, "-c", where], cwd=work, capture_output=True, text=True, check=True).stdout
    assert shown.startswith(str(libraries))
    arguments = [*RUN, "--trials", "2", "--epochs", "1", "--name", "tiny", "--no-baselines", "--no-register"]
    ended = subprocess.run(
        [python, "-m", "lorasweep", *arguments], cwd=work, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    status = [python, "-m", "lorasweep", "status", "tiny", "--json"]
    states = json.loads(subprocess.run(status, cwd=work, capture_output=True, text=True, check=True).stdout)
    assert {trial["state"] for trial in states["trials"]} <= {"completed", "stopped"}
    assert not (tmp_path / "imported").exists()
