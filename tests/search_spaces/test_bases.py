"""Base models that a space chooses: their names in full, the sweep's own among them, and starts without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorasweep.search_spaces.bases import base_models, settle_bases
from lorasweep.search_spaces.domains import Choice
from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.errors import SettingsError

FUNCTION = """
def space(trial):
    if trial.suggest_float("learning_rate", 1e-4, 1e-2) < 5e-3:
        return {"base_model": "minilm"}
    trial.suggest_categorical("base_model", ["roberta-base", "minilm"])
"""


def space(*choices: str | None, **more: Any) -> SearchSpace:
    return SearchSpace.from_dict({"base_model": {"choice": list(choices)}, "rank": {"choice": [2, 4]}} | more)


def test_a_space_that_names_none_leaves_all_as_it_is() -> None:
    plain = SearchSpace.from_dict({"rank": {"choice": [2, 4]}})
    assert (base_models(plain), settle_bases(plain, "minilm", False)) == ((), (plain, "minilm"))


def test_folders_are_named_in_full_and_starts_get_the_sweeps_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    starts = [{"rank": 2}, {"rank": 4, "base_model": "./two"}]
    settled, own = settle_bases(space("one", "./two", starts=starts), str(tmp_path / "two"), True)
    assert isinstance(settled, SearchSpace)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert settled.searched["base_model"] == Choice((one, two))
    assert settled.start_points() == [{"base_model": two, "rank": 2}, {"base_model": two, "rank": 4}]
    assert own == two
    # Settled once more, as when a sweep is resumed, nothing changes.
    assert settle_bases(settled, own, True) == (settled, own)
    with pytest.raises(SettingsError, match=r"base_model: .*/one stands twice in the choice"):
        settle_bases(space("one", "./one"), one, True)


def test_null_is_the_sweeps_own() -> None:
    settled, own = settle_bases(space(None, "roberta-base", start={"rank": 2}), "bert-base-uncased", True)
    assert own == "bert-base-uncased"
    assert settled.start_points() == [{"base_model": None, "rank": 2}]


def test_the_first_takes_the_place_of_one_that_nobody_asked_for() -> None:
    assert settle_bases(space("a/b", "c/d"), "minilm", False)[1] == "a/b"
    constant = SearchSpace.from_dict({"base_model": "a/b", "rank": {"choice": [2, 4]}})
    assert (settle_bases(constant, "minilm", False)[1], base_models(constant)) == ("a/b", ("a/b",))
    with pytest.raises(
        SettingsError, match=r"--base-model e/f: the space never uses it, .* a/b, c/d; leave it out"
    ):
        settle_bases(space("a/b", "c/d"), "e/f", True)


def test_a_functions_base_models_are_those_of_its_branches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = FunctionSpace(Path("function"), "space", FUNCTION)
    assert set(base_models(found)) == {"minilm", "roberta-base"}
    assert settle_bases(found, "minilm", True) == (found, "minilm")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roberta-base").mkdir()
    with pytest.raises(
        SettingsError, match=r"roberta-base holds in this folder only; let the function name /"
    ):
        settle_bases(found, "minilm", True)
