"""`--help` of every verb: nothing of a text is lost on the way to the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from lorasweep.command_line.main import app
from lorasweep.options import OPTIONS, help_line
from lorasweep.tuning.adapters.apply.predict_file import OUTPUTS


def verbs(command: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield above, command
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            yield from verbs(below, (*above, name))


VERBS = dict(verbs(typer.main.get_command(app)))


def help_of(verb: tuple[str, ...], columns: int) -> str:
    shown = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": str(columns)})
    assert shown.exit_code == 0
    return shown.output


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_help_loses_its_brackets(verb: tuple[str, ...]) -> None:
    """Rich takes [auto] for a tag; what is left of it would be a blank before the full stop, or nothing."""
    shown = help_of(verb, 80)
    assert max(map(len, shown.splitlines())) <= 80
    for line in shown.splitlines():
        assert not re.search(r"\s\.(\s|│|$)|\[\s*\]|<bool>", line.replace("[default: .]", "")), line


def test_each_option_of_a_sweep_is_shown_with_all_of_its_help() -> None:
    shown = help_of(("run",), 400)
    for option in OPTIONS.values():
        assert re.search(rf"{option.flag}\b.* {re.escape(help_line(option))} ", shown), option.flag


def test_a_bracket_is_not_taken_for_a_tag() -> None:
    assert "One of auto, bf16, fp16, fp32. [auto]" in help_of(("run",), 400)
    assert "The model's name [the sweep's]." in help_of(("register",), 400)


def test_predict_names_the_formats_that_can_be_written() -> None:
    shown = help_of(("predict",), 400)
    assert f"label and score, {', '.join(OUTPUTS[:-1])} or {OUTPUTS[-1]}." in shown
