"""`SweepConfig`: there and back through YAML, and one line for whatever is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig, merge, read_config_file

FULL: dict[str, Any] = {
    "name": "news-1",
    "data": {"path": "news.jsonl", "text": ["headline", "short é"], "label": ["category"]},
    "base_model": "some/model",
    "training": {"epochs": 5, "metric": "macro_f1", "precision": "bf16"},
    "search": {"space": "spaces.py:space", "trials": 40, "asha": False},
    "resources": {"gpus_per_trial": 0.5, "address": "auto"},
    "keep": 2,
    "compare_untuned": True,
    "tracking_uri": "sqlite:///x.db",
}


@pytest.mark.parametrize("entries", [FULL, {"name": "a"}])
def test_yaml_and_back(entries: dict[str, Any], tmp_path: Path) -> None:
    """A saved configuration reads back as an equal one, also as `--config`."""
    config = SweepConfig.build(entries, "settings")
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert SweepConfig.build(read_config_file(file), str(file)) == config
    kept = yaml.safe_load(config.to_yaml())
    assert merge(kept, entries) == kept, "nothing of what was asked for is lost"


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ({"search": {"trails": 3}}, ("search.trails", "no such setting")),
        ({"epochs": 3}, ("epochs", "no such setting")),
        ({"search": {"trials": "many"}}, ("search.trials", "'many'", "whole number")),
        ({"search": {"trials": 0}}, ("search.trials", "0", "1 or more")),
        ({"search": {"sampler": "grid"}}, ("search.sampler", "'grid'", "use tpe or random")),
        ({"training": {"metric": "f1"}}, ("training.metric", "'f1'", "macro_f1")),
        ({"search": []}, ("search", "[]")),
        ({"resources": {"gpus_per_trial": -1}}, ("resources.gpus_per_trial", "-1")),
        ({"name": None}, ("name", "None")),
    ],
)
def test_refusals_are_one_line(entries: dict[str, Any], parts: tuple[str, ...]) -> None:
    """With the source, the key, its value, and what is allowed."""
    with pytest.raises(SettingsError) as refused:
        SweepConfig.build({"name": "a"} | entries, "my.yaml")
    message = str(refused.value)
    assert message.startswith("my.yaml: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_name_is_told() -> None:
    """The one setting without a default."""
    with pytest.raises(SettingsError, match=r"^settings: name: is missing$"):
        SweepConfig.build({}, "settings")


@pytest.mark.parametrize(
    "name", ["../x", "", "a/b", ".hidden", "-x", "a b", "a\n", "é", "x" * 81, "..", "a\0"]
)
def test_names_that_are_no_folders_are_refused(name: str) -> None:
    """A name is one path segment below the sweeps' folder, whatever is asked."""
    with pytest.raises(SettingsError, match=r"name: .* at most 80") as refused:
        SweepConfig.build({"name": name}, "settings")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a", "News.2024_v-1", "9", "x" * 80])
def test_names_that_are_folders(name: str) -> None:
    """Letters, digits, '.', '_' and '-'."""
    assert SweepConfig(name=name).name == name


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"search:\n  trials: [3\nname: a\n", " line 3: not valid YAML"),
        (b"name: a\n\tkeep: 3\n", " line 2: not valid YAML"),
        (b"- a\n- b\n", ": holds a list; write one"),
        (b"", ": holds nothing; write one"),
        (b"name: \xff\n", ": not UTF-8 text"),
        (b"a: !!python/object/apply:os.system ['true']\n", " line 1: not valid YAML"),
        (
            b"name: a\nsearch: {trials: 3}\nsearch: {trials: 4}\n",
            " line 3: not valid YAML: search stands twice (first on line 2)",
        ),
        (b"search: {trials: 3, trials: 4}\n", " line 1: not valid YAML: trials stands twice"),
        (None, ": no such file"),
    ],
)
def test_files_that_are_refused(text: bytes | None, part: str, tmp_path: Path) -> None:
    """Each names the file and, where there is one, the line."""
    file = tmp_path / "sweep.yaml"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(SettingsError) as refused:
        read_config_file(file)
    message = str(refused.value)
    assert message.startswith(f"--config {file}{part}")
    assert "\n" not in message


def test_merge_goes_down_and_changes_nothing() -> None:
    """Mapping by mapping; anything else is replaced whole."""
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    over = {"a": {"y": [3]}, "b": {"z": 1}}
    assert merge(base, over) == {"a": {"x": 1, "y": [3]}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


@pytest.mark.parametrize("entries", [{"name": "a/b"}, {"name": "../x"}, {"name": "a", "enabled": False}])
def test_a_registered_model_needs_a_name_that_mlflow_takes(entries: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="registry"):
        SweepConfig.build({"name": "demo", "registry": entries}, "settings")


def test_the_registered_model_is_named_for_the_sweep_or_as_asked() -> None:
    assert SweepConfig(name="demo").registered_name == "demo"
    named = SweepConfig.build({"name": "demo", "registry": {"name": "all news"}}, "settings")
    assert named.registered_name == "all news"


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"finalists": 2},
            "search.finalists: 2: goes with --proxy; without that, all trials train on all rows",
        ),
        ({"proxy": 1.5}, "search.proxy: 1.5: use a share below 1, or a whole number of training rows"),
        ({"proxy": 0}, "search.proxy: 0: use more than 0"),
        ({"proxy": float("inf")}, "search.proxy: inf: use a finite number"),
        ({"proxy": 0.5, "finalists": 0}, "search.finalists: 0: use 1 or more"),
    ],
)
def test_a_part_to_search_on_is_a_share_or_a_number(search: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SweepConfig.build({"name": "demo", "search": search}, "settings")
    assert str(caught.value) == f"settings: {message}"


def test_finalists_follow_a_search_on_a_part_alone() -> None:
    wanted = [
        SweepConfig.model_validate({"name": "demo", "search": search}).search.finalists_wanted
        for search in ({}, {"proxy": 0.5}, {"proxy": 20, "finalists": 7})
    ]
    assert wanted == [0, 3, 7]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("checkpoints", "{here}/checkpoints"),
        ("../shared/", "{above}/shared"),
        ("~/shared", "{home}/shared"),
        ("/shared/link/x", "/shared/link/x"),
        ("s3://bucket/x?region=eu-west-1", "s3://bucket/x?region=eu-west-1"),
    ],
)
def test_a_storage_holds_in_every_folder(
    given: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = SweepConfig.build({"name": "demo", "resources": {"storage": given}}, "settings")
    assert config.resources.storage == kept.format(here=tmp_path, above=tmp_path.parent, home="/home/me")


@pytest.mark.parametrize("given", ["", "s3:/bucket/x"])
def test_what_is_neither_a_folder_nor_a_uri_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match=r"resources\.storage: .*: name a folder, or a URI such as s3://"):
        SweepConfig.build({"name": "demo", "resources": {"storage": given}}, "settings")
