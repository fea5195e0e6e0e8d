"""Options in messages: named as whoever gave them has written them."""

from __future__ import annotations

from typing import Any

import pytest

import lorasweep
from lorasweep.options import to_entries
from lorasweep.spelling import in_python, naming_keywords, naming_options, on_command_line
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig


def refusal(options: dict[str, Any], config: dict[str, Any] | None = None, file: str | None = None) -> str:
    with pytest.raises(SettingsError) as refused, naming_options(options, file):
        SweepConfig.build({"name": "a"} | (config or {}) | to_entries(options), "settings")
    return str(refused.value)


@pytest.mark.parametrize(
    ("options", "typed", "python"),
    [
        ({"metric": "f1"}, "--metric f1", "metric='f1'"),
        ({"max_train_rows": 0}, "--max-train-rows 0", "max_train_rows=0"),
        ({"choose": "all of them"}, "--choose 'all of them'", "choose='all of them'"),
        (
            {"no_register": True, "register": "x", "trials": 3},
            "--no-register --register x",
            "no_register=True register='x'",
        ),
    ],
)
def test_an_option_is_named_as_it_was_given(options: dict[str, Any], typed: str, python: str) -> None:
    """What was not given, or has nothing to do with it, is not named."""
    options |= {"epochs": 2, "seed": None}
    assert refusal(options).startswith(f"{python}: ")
    with on_command_line():
        assert refusal(options).startswith(f"{typed}: ")


def test_a_setting_of_a_file_is_named_as_it_stands_there() -> None:
    with on_command_line():
        line = refusal({"trials": 3}, {"training": {"metric": "f1"}}, "sweep.yaml")
    assert line.startswith("sweep.yaml: training.metric: 'f1': use accuracy, macro_f1, loss, ")


@pytest.mark.parametrize(
    ("typed", "python"),
    [
        ("--concurrency 64: lower it or --gpus-per-trial", "concurrency=64: lower it or gpus_per_trial"),
        ("no column 'x' (--text); or --columns", "no column 'x' (text); or columns"),
        ("--format 'onnx': use --format merged", "format='onnx': use format merged"),
        ("try: lorasweep resume a --mlruns b; or --name", "try: lorasweep resume a --mlruns b; or name"),
        ("ray start --head, pip install --no-deps x", "ray start --head, pip install --no-deps x"),
    ],
)
def test_python_reads_keywords(typed: str, python: str) -> None:
    """Commands stay what they are."""
    assert in_python(typed) == python
    with pytest.raises(SettingsError) as told, naming_keywords():
        raise SettingsError(typed)
    assert str(told.value) == python
    with pytest.raises(SettingsError) as told, on_command_line(), naming_keywords():
        raise SettingsError(typed)
    assert str(told.value) == typed


def test_the_functions_of_lorasweep_do() -> None:
    with pytest.raises(SettingsError, match=r"^metric='f1': use accuracy, macro_f1, .* a label of the data$"):
        lorasweep.run("rows.csv", metric="f1", verbose=False)
    with pytest.raises(SettingsError, match=r"^export: public goes with push_to_hub$"):
        lorasweep.export("demo", "out", public=True)
