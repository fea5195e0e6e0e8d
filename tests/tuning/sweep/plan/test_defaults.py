"""How the command line's options become a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lorasweep.options import to_entries
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.sweep.plan.defaults import (
    QUICKSTART,
    default_space,
    free_name,
    given_entries,
    name_after,
    sweep_config,
)
from lorasweep.tuning.sweep.plan.defaults import stem as stem_of
from lorasweep.tuning.trials import hardware
from lorasweep.tuning.trials.hardware import Node


def config_of(options: dict[str, Any], config: Path | SweepConfig | None, mlruns: Path) -> SweepConfig:
    return sweep_config(given_entries(to_entries(options), config), mlruns)


def test_options_go_before_the_file(tmp_path: Path) -> None:
    """Value by value: what only the file says stays; False and 0 are values too."""
    file = tmp_path / "sweep.yaml"
    entries = {
        "name": "filed",
        "data": {"path": "a.csv", "text": ["body"]},
        "search": {"trials": 7, "sampler": "random", "space": "lora_methods"},
        "training": {"seed": 5},
    }
    file.write_text(yaml.safe_dump(entries))
    options = {
        "trials": 9,
        "asha": False,
        "seed": 0,
        "text": ["x, y", "z"],
        "epochs": None,
        "gpus_per_trial": 0.0,
    }
    config = config_of(options, file, tmp_path)
    assert config.name == "filed"
    assert (config.search.trials, config.search.sampler, config.search.asha) == (9, "random", False)
    assert config.search.space == "lora_methods"
    assert config.training.seed == 0
    assert config.resources.gpus_per_trial == 0
    assert config.data.path == "a.csv"
    assert config.data.text == ("x", "y", "z")
    assert config_of({"text": []}, file, tmp_path).data.text == ("body",)


def test_quickstart_only_without_data(tmp_path: Path) -> None:
    """Without data the sample's small sweep, changed by what is asked; with data the ordinary defaults."""
    sample = config_of({"trials": 3}, None, tmp_path)
    assert sample.search.space == "quickstart"
    assert sample.search.trials == 3
    assert sample.compare_untuned
    assert sample.data.max_train_rows == QUICKSTART["data"]["max_train_rows"]
    assert sample.name == "sample-news-1"
    timed = config_of({"max_minutes": 3.0}, None, tmp_path)
    assert (timed.search.open, timed.search.space) == (True, "quickstart")
    assert config_of({"max_minutes": 3.0, "trials": 5}, None, tmp_path).search.trials == 5
    own = config_of({"data": "my news.jsonl.gz", "gpus_per_trial": 0.0}, None, tmp_path)
    assert own.search.space == "lora_cpu"
    assert own.search.trials == SweepConfig(name="a").search.trials
    assert own.data.max_train_rows is None
    assert not own.compare_untuned
    assert own.name == "my-news-1"
    assert (
        config_of({"data": "a.csv", "space": "lora_methods"}, None, tmp_path).search.space == "lora_methods"
    )


def test_sweeps_are_judged_by_their_metric_unless_told_otherwise(tmp_path: Path) -> None:
    assert config_of({}, None, tmp_path).objective == "accuracy"
    own = {"data": "a.csv", "gpus_per_trial": 0.0, "metric": "macro_f1"}
    assert config_of(own, None, tmp_path).objective == "macro_f1"
    assert config_of(own | {"objective": "loss"}, None, tmp_path).objective == "loss"
    file = tmp_path / "sweep.yaml"
    file.write_text("search: {objective: accuracy}\ntraining: {metric: macro_f1}\n")
    assert config_of({}, file, tmp_path).objective == "accuracy"
    file.write_text("search: {objective: null}\n")
    assert config_of({}, file, tmp_path).objective == "accuracy"


def test_default_space_is_for_where_trials_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs, asked for or found; on cores where 0 GPUs are asked for."""
    for found in (0, 2):
        monkeypatch.setattr(hardware, "count_cards", lambda found=found: found)
        assert default_space({"resources": {"gpus_per_trial": 0.5}}) == "lora_bert"
        assert default_space({"resources": {"gpus_per_trial": 0}}) == "lora_cpu"
        for entries in ({}, {"resources": {}}, {"resources": None}, {"resources": {"gpus_per_trial": None}}):
            assert default_space(entries) == ("lora_bert" if found else "lora_cpu")


def test_default_space_is_for_the_clusters_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    clusters = {
        None: (Node(8, 1),),
        "here:1": (Node(8, 0, "a"),),
        "there:1": (Node(8, 0, "a"), Node(8, 2, "b")),
    }
    monkeypatch.setattr(hardware, "find_nodes", clusters.get)
    for address, space in (("here:1", "lora_cpu"), ("there:1", "lora_bert")):
        assert default_space({"resources": {"address": address}}) == space
        assert default_space({"resources": {"address": address, "gpus_per_trial": 0}}) == "lora_cpu"


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("news.jsonl.gz", "news"),
        ("Süße Texte (2).csv", "s-e-texte-2"),
        ("....", "sweep"),
        ("日本.csv", "sweep"),
        ("a" * 200 + ".csv", "a" * 60),
        ("x" * 59 + " y.csv", "x" * 59),
        ("v1.2.csv", "v1-2"),
    ],
)
def test_free_names_are_allowed_names(stem: str, words: str, tmp_path: Path) -> None:
    """The data's own words and the first number that is free."""
    assert free_name(stem_of(stem), tmp_path) == f"{words}-1"
    for number in (1, 2):
        (tmp_path / "sweeps" / f"{words}-{number}").mkdir(parents=True)
    assert SweepConfig(name=free_name(stem_of(stem), tmp_path)).name == f"{words}-3"


@pytest.mark.parametrize(
    ("name", "after"),
    [("news", "news-2"), ("news-1", "news-2"), ("other-7", "other-7"), ("x" * 80, "x" * 70 + "-1")],
)
def test_a_name_in_use_is_counted_up(name: str, after: str, tmp_path: Path) -> None:
    for used in ("news", "news-1", "x" * 80):
        (tmp_path / "sweeps" / used).mkdir(parents=True)
    assert name_after(name, tmp_path) == after


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("data: 3\n", "data: 3"),
        ("search: x\ndata: {path: a}\n", "search: 'x'"),
        ("data: {pth: a}\n", "data.pth"),
        ("data: {path: 5}\n", "data.path: 5"),
    ],
)
def test_a_file_with_mistakes_is_refused_in_one_line(text: str, part: str, tmp_path: Path) -> None:
    """Also where a group is no mapping, and other options are looked up in it."""
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        config_of({"trials": 3} if "search" not in text else {}, file, tmp_path)
    assert part in str(refused.value)
    assert "\n" not in str(refused.value)
