"""The scripts and the notebook of `examples/`, and the README's Python: they run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from forked_programs import fork_program
from whole_sweeps import END, ENVIRONMENT, Process, ending, new_interpreter

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def output(process: Process) -> str:
    """What a program prints, which ends well."""
    with ending(process):
        out, err = process.communicate(timeout=END)
    assert process.returncode == 0, out[-3000:] + err[-3000:]
    return out


def test_there_are_some() -> None:
    assert len(SCRIPTS) >= 5
    assert NOTEBOOKS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script: Path, tmp_path: Path) -> None:
    assert output(fork_program(tmp_path, [str(script)], ENVIRONMENT)).strip()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook: Path, tmp_path: Path) -> None:
    """Cell by cell in a kernel, as Jupyter runs it; progress is one display that is updated."""
    import nbclient
    import nbformat

    (tmp_path / "examples").mkdir()
    shutil.copy(notebook, tmp_path / "examples")
    cells = nbformat.read(tmp_path / "examples" / notebook.name, as_version=4)
    nbclient.NotebookClient(
        cells, timeout=END, resources={"metadata": {"path": str(tmp_path / "examples")}}
    ).execute()
    swept = next(cell for cell in cells.cells if "lorasweep.run(" in cell.source)
    drawn = [output for output in swept.outputs if output.output_type == "display_data"]
    assert len(drawn) == 1, swept.outputs
    assert "finished after" in drawn[0]["data"]["text/html"]
    noise = [
        output for cell in cells.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    ]
    assert noise == []


def test_the_readmes_python(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert blocks
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    output(new_interpreter(tmp_path, ["readme.py"]))
