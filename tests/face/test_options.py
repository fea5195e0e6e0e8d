"""The options of a sweep, made from the fields of its configuration."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import lorasweep
from lorasweep.command_line.options import sweep_options
from lorasweep.options import OPTIONS, help_line, split_names, to_entries
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Settings
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder


def fields(settings: type[Settings], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    places = []
    for name, field in settings.model_fields.items():
        below = field.annotation
        nested = isinstance(below, type) and issubclass(below, Settings)
        places += fields(below, (*above, name)) if nested else [(*above, name)]
    return places


def test_every_field_is_an_option_under_a_name_of_its_own() -> None:
    assert sorted(option.place for option in OPTIONS.values()) == sorted(fields(SweepConfig))


def test_every_option_is_a_keyword_of_run_and_an_option_of_the_command() -> None:
    from lorasweep.command_line import main

    assert set(OPTIONS) <= set(inspect.signature(lorasweep.run).parameters)
    assert set(OPTIONS) <= set(inspect.signature(main.run).parameters)
    for name in OPTIONS:
        assert f"\n        {name}: " in (lorasweep.run.__doc__ or "")


@pytest.mark.parametrize("option", OPTIONS.values(), ids=str)
def test_a_help_line_says_what_the_option_does(option: Any) -> None:
    """A sentence, once: choices and default are added from the field."""
    assert option.help[0].isupper() or option.help.startswith("`"), option.help
    assert option.help.endswith("."), option.help
    assert help_line(option).count("[") <= 1 + option.help.count("["), help_line(option)


def test_help_shows_choices_and_defaults() -> None:
    assert help_line(OPTIONS["metric"]).endswith("f1:LABEL, auroc, average_precision, brier. [accuracy]")
    assert help_line(OPTIONS["trials"]).endswith("[20]")
    assert help_line(OPTIONS["asha"]).endswith("[on]")


def test_options_become_a_nested_mapping() -> None:
    """What is None is left out; False and 0 are values too."""
    options = {
        "data": "a.csv",
        "text": ["x, y", "z"],
        "columns": "a,b",
        "trials": 9,
        "asha": False,
        "seed": 0,
        "choose": "smallest",
        "no_register": True,
        "epochs": None,
    }
    assert to_entries(options) == {
        "data": {"path": "a.csv", "text": ["x", "y", "z"], "columns": ["a", "b"]},
        "search": {"trials": 9, "asha": False},
        "training": {"seed": 0},
        "choice": {"rule": "smallest"},
        "registry": {"enabled": False},
    }
    assert to_entries({"text": []}) == {}


def test_a_name_in_quotes_may_hold_commas() -> None:
    assert split_names('"title, in short", body') == ["title, in short", "body"]
    assert split_names(['"a, ""b"""', '5" screen,c', "d"]) == ['a, "b"', '5" screen', "c", "d"]


def test_an_option_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"trails: there is no such option, did you mean trials\?"):
        to_entries({"trails": 3})


def test_a_verb_gets_its_options_as_a_mapping() -> None:
    """In the command's own order, with what it adds itself; `--no-` turns a switch off."""
    seen: list[tuple[dict[str, Any], int]] = []

    @sweep_options(("trials", "text", "asha", "no_register"))
    def verb(*, options: dict[str, Any], more: int = 3) -> None:
        """Do it."""
        seen.append((options, more))

    app = typer.Typer()
    app.command()(verb)
    run = CliRunner().invoke
    assert (
        run(app, ["--trials", "4", "--text", "a", "--text", "b", "--no-asha", "--more", "5"]).exit_code == 0
    )
    assert run(app, ["--no-register"]).exit_code == 0
    assert seen == [
        ({"trials": 4, "text": ["a", "b"], "asha": False, "no_register": None}, 5),
        ({"trials": None, "text": None, "asha": None, "no_register": True}, 3),
    ]
    assert "Do it." in run(app, ["--help"]).stdout


def test_a_sweep_that_goes_on_keeps_its_search(tmp_path: Path) -> None:
    """And what may differ is named as Python writes it."""
    SweepFolder(tmp_path, "demo").create(SweepConfig(name="demo"))
    with pytest.raises(
        SettingsError, match=r"^trials: a sweep that goes on keeps it; .*address, "
    ) as refused:
        lorasweep.resume("demo", mlruns=tmp_path, trials=9)
    assert "--" not in str(refused.value)
    with pytest.raises(SettingsError, match="concurrency=0: use 1 or more"):
        lorasweep.resume("demo", mlruns=tmp_path, concurrency=0)
    with pytest.raises(SettingsError, match="adress: there is no such option, did you mean address"):
        lorasweep.resume("demo", mlruns=tmp_path, adress="auto")
