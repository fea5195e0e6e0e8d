"""A function of a notebook or a program becomes a file of its own that searches the same space."""

from __future__ import annotations

import functools
import linecache
import math
import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest

from lorasweep.search_spaces.domains import Choice, IntRange, Range
from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import SearchSpace, as_space
from lorasweep.training.errors import SettingsError

CELLS = count(1)
NOTEBOOK = '''
import math
import os.path as where
import optuna as op
from functools import cache
from functools import lru_cache as cached

RANKS = [4, 8, 16]
FACTORS = {"small": 1.0, "large": (2.0, None)}
print = print
unused = open


def factor(kind: Unknown) -> Unknown:
    return twice(FACTORS[kind])


def twice(value, depth=len(RANKS)):
    return value * 2 if depth == 3 else factor("small")


@cache
def ratio():
    return factor("small")


def my_space(trial: op.Trial) -> dict:
    """Alpha follows rank."""
    rank = trial.suggest_categorical("rank", RANKS)
    unused = where.basename("a/lora")
    method: Choice = trial.suggest_categorical("method", sorted({unused, "dora"}))
    trial.suggest_float("learning_rate", math.exp(-9), 1e-3, log=True)
    return {"alpha": ratio() * rank}
'''


PROGRAM = """
from dataclasses import dataclass

LOW = 4


@dataclass
class Ratio:
    low: int = LOW
    high: int = 2 * LOW


def my_space(trial):
    return {"alpha": trial.suggest_int("rank", Ratio().low, Ratio().high)}
"""


def cell(source: str, name: str = "my_space", known: dict[str, Any] | None = None) -> Any:
    """What `source` calls `name`, run as a notebook runs a cell."""
    file = f"<cell {next(CELLS)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": "__main__", **(known or {})}
    code = compile("from __future__ import annotations" + source, file, "exec")
    exec(code, namespace)
    return namespace[name]


def values_of(suggest: Callable[[optuna.Trial], Any]) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    found = []
    for _ in range(20):
        trial = study.ask()
        returned = suggest(trial)
        found.append({**trial.params, **(returned or {})})
    return found


def test_a_function_of_a_notebook(tmp_path: Path) -> None:
    notebook = cell(NOTEBOOK)
    space = as_space(notebook)
    assert isinstance(space, FunctionSpace)
    assert (space.name, space.about) == ("function:my_space", "Alpha follows rank.")
    expected = values_of(notebook)
    assert values_of(space.suggest) == expected
    assert {entry["alpha"] for entry in expected} == {8.0, 16.0, 32.0}
    # As in another process, and as a sweep that is resumed reads it.
    assert values_of(pickle.loads(pickle.dumps(space)).suggest) == expected
    (tmp_path / "space.py").write_text(space.source)
    assert values_of(FunctionSpace(tmp_path / "space.py", "my_space").suggest) == expected
    for left_out in ("unused =", "cached", "print ="):
        assert left_out not in space.source.replace("    unused =", "")


def test_a_class_of_a_programs_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_a_test.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    function = import_module("mine_of_a_test").my_space
    space = as_space(function)
    monkeypatch.delitem(sys.modules, "mine_of_a_test")
    assert space.source.startswith(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\nLOW = 4"
    )
    assert values_of(space.suggest) == values_of(function)


def test_what_runs_is_the_source_that_is_kept() -> None:
    function = cell("\ndef my_space(trial):\n    trial.suggest_int('rank', *ENDS)\n", known={"ENDS": [1, 8]})
    space = as_space(function)
    function.__globals__["ENDS"] = [100, 200]
    assert space.describe() == [("rank", "1 ... 8")]


REFUSED: dict[str, tuple[Any, str]] = {
    "a lambda": (lambda trial: trial.suggest_int("rank", 1, 8), "is a lambda; give it a name with def"),
    "a class's instance": (functools.partial(print), "is a partial, not a plain function"),
    "a builtin": (print, "is a builtin_function_or_method, not a plain function"),
    "a method": (SearchSpace("x", {"rank": Choice((4, 8))}).suggest, "is a bound method"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_function(name: str) -> None:
    function, message = REFUSED[name]
    refused(function, message)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "uses local variables of the function around it (high, low)"),
        ("thing = object()", "uses thing, which is a object that cannot be written down"),
        ("thing = float('nan')", "uses thing, which is a float that cannot be written down"),
        ("thing = lambda: 8", "uses thing, which is a lambda"),
        ("other = lambda: 8\nthing = [other]", "uses thing, which is a list that cannot be written down"),
        ("def real(): return 8\nthing = real", "uses thing, which differs from its source"),
        ("exec('def thing(): return 8')", "uses thing, which has no source that can be read"),
    ],
)
def test_what_cannot_be_written_down(source: str, message: str) -> None:
    if source:
        refused(cell(f"\n{source}\ndef my_space(trial):\n    trial.suggest_int('rank', 1, thing)\n"), message)
        return

    def around(low: int, high: int) -> Callable[[optuna.Trial], None]:
        def closure(trial: optuna.Trial) -> None:
            trial.suggest_int("rank", low, high)

        return closure

    refused(around(1, 8), message)


def test_a_function_typed_at_a_prompt() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("def typed(trial):\n    trial.suggest_int('rank', 1, 8)\n", "<stdin>", "exec"), namespace)
    refused(namespace["typed"], "has no source that can be read")


def test_a_file_that_has_changed_since_its_import(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = "def my_space(trial):\n    trial.suggest_int('rank', 1, 8)\n"
    path.write_text(text)
    namespace: dict[str, Any] = {"__name__": "mine"}
    exec(compile(text, str(path), "exec"), namespace)
    assert as_space(namespace["my_space"]).describe() == [("rank", "1 ... 8")]
    path.write_text(text.replace("8", "64"))
    refused(namespace["my_space"], "differs from its source: the file has changed")


def refused(function: Any, message: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        as_space(function)
    text = str(refusal.value)
    assert message in text
    assert text.startswith("space: the function ")
    assert text.endswith("; write it to a file and pass space='file.py:function'")
    assert "\n" not in text


def test_a_kept_functions_own_error_shows_its_line() -> None:
    space = "\ndef my_space(trial):\n    rank = trial.suggest_int('rank', 1, 8)\n    return {'alpha': rank / gone}\n"
    with pytest.raises(SettingsError) as refusal:
        as_space(cell(space))
    assert str(refusal.value) == (
        "space: my_space failed at `return {'alpha': rank / gone}`: NameError: name 'gone' is not defined"
    )
    with pytest.raises(SettingsError, match=r"^space: my_space suggests nothing"):
        as_space(cell("\ndef my_space(trial):\n    return {'rank': 4}\n"))


def test_a_space_as_a_dict() -> None:
    domains = {"rank": Choice((4, 8)), "dropout": Range(0.0, 0.2), "batch_size": IntRange(8, 32, log=True)}
    written = {
        "rank": {"choice": [4, 8]},
        "dropout": {"uniform": [0, 0.2]},
        "batch_size": {"int": [8, 32], "log": True},
    }
    spaces = [as_space(entries | {"alpha": 16, "start": {}}) for entries in (domains, written)]  # type: ignore[operator]
    assert spaces[0] == spaces[1]
    assert spaces[0].name == "dict"
    assert isinstance(spaces[0], SearchSpace)
    assert spaces[0].parameters == domains | {"alpha": 16}
    assert SearchSpace.from_yaml(spaces[0].to_yaml(), "dict") == spaces[0]
    with pytest.raises(SettingsError, match=r"^dict: rank: .* is a list; write {choice: "):
        as_space({"rank": [4, 8]})


def test_a_space_by_name_or_file_or_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rank: {choice: [4, 8]}\n")
    space = as_space(tmp_path / "mine.yaml")
    assert dict(space.describe()) == {"rank": "4, 8"}
    assert as_space(space) is space
    assert as_space("lora_cpu").name == "lora_cpu"
    with pytest.raises(
        SettingsError, match=r"^space: 3 is no search space; pass a name, a file, a dict or a func"
    ):
        as_space(3)  # type: ignore[arg-type]


def test_numbers_are_written_as_they_are() -> None:
    known = {"LOW": 1e-4, "HIGH": math.pi / 1000}
    source = "\ndef my_space(trial):\n    trial.suggest_float('learning_rate', LOW, HIGH)\n"
    text = FunctionSpace.from_function(cell(source, known=known)).source
    assert "LOW = 0.0001\nHIGH = 0.0031415926535897933\n" in text
