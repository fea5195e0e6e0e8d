"""The benchmarks time and replace functions of lorasweep by their names: each of these names has to exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest
import timed_lorasweep

FOLDER = Path(timed_lorasweep.__file__).parent
PATH = re.compile(r"(lorasweep|ray)(\.\w+)+")


def paths() -> list[str]:
    """Every string in the benchmarks that is the dotted path of a function."""
    return sorted(
        {
            f"{file.name}: {node.value}"
            for file in FOLDER.glob("*.py")
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and PATH.fullmatch(node.value)
        }
    )


@pytest.mark.parametrize("place", paths())
def test_a_name_exists(place: str) -> None:
    assert callable(resolve_name(place.split(": ")[1]))


def test_every_script_that_patches_is_looked_at() -> None:
    """Or a name that is written in another way would be missed."""
    scripts = {place.split(": ")[0] for place in paths()}
    patching = {file.name for file in FOLDER.glob("*.py") if re.search(r"\bpatch\(", file.read_text())}
    assert scripts == patching | {"timed_lorasweep.py"}


def test_a_name_that_is_gone_is_not_replaced_in_silence() -> None:
    with pytest.raises(AttributeError, match="gone"):
        timed_lorasweep.replace("lorasweep.tuning.sweep.run.gone", print)
    with pytest.raises(AttributeError, match="gone"):
        timed_lorasweep.record({"lorasweep.tuning.sweep.run.gone": timed_lorasweep.Cause.REST})
