"""How a message names an option: `--metric f1` if it was typed, `metric='f1'` in Python, `training.metric` in a file.

The floors below name settings by their place in a `SweepConfig`, and options as the command line spells them. Here
both become what whoever asked has written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lorasweep.options import OPTIONS
from lorasweep.training.errors import LorasweepError, SettingError, SettingsError

_typed: ContextVar[bool] = ContextVar("typed", default=False)
# What the functions of `lorasweep` take beside the options of a sweep, under the names of the command line.
KEYWORDS = {
    *OPTIONS,
    "config",
    "extend",
    "folds",
    "format",
    "mlruns",
    "out",
    "public",
    "push_to_hub",
    "rows",
    "sweep",
    "trial",
}
# A command stays as it is; an option may have a value between it and a colon.
MENTIONED = re.compile(
    r"lorasweep \w+[^;()]*|--(?P<name>[a-z][a-z-]*)(?: (?P<value>'[^']*'|[^\s:;,]+)(?=:))?"
)


@contextmanager
def on_command_line() -> Iterator[None]:
    """Whatever is called in the block was typed as a command."""
    token = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(token)


@contextmanager
def naming_options(options: Mapping[str, Any], source: object = None) -> Iterator[None]:
    """Let errors about settings name the options that were given for them.

    Args:
        options: by name; None is not given. Those that no sweep has are settings of the same name.
        source: the configuration that has the other settings; named if it is a file.
    """
    try:
        yield
    except SettingError as error:
        places = {name: OPTIONS[name].place if name in OPTIONS else (name,) for name in options}
        spelled = " ".join(
            spell(name, value)
            for name, value in options.items()
            if value not in (None, []) and _overlap(places[name], error.place)
        )
        if spelled:
            raise SettingsError(f"{spelled}: {error.problem}") from error
        if isinstance(source, str | Path):
            raise SettingError(error.place, error.problem, value=error.value, source=str(source)) from error
        raise


@contextmanager
def naming_keywords() -> Iterator[None]:
    """Let errors that name options of the command line name Python's keywords, unless a command was typed."""
    try:
        yield
    except LorasweepError as error:
        if not _typed.get():
            error.args = (in_python(str(error)),)
        raise


def spell(name: str, value: Any) -> str:
    """An option with its value, as it is typed or as Python writes it."""
    if not _typed.get():
        return f"{name}={value!r}"
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join(f"--{flag} {shlex.quote(str(value))}" for value in values)


def in_python(message: str) -> str:
    """A message that names options as the command line does, for Python: `--trials 0: ...` as `trials=0: ...`."""

    def keyword(found: re.Match[str]) -> str:
        name = (found["name"] or "").replace("-", "_")
        if name not in KEYWORDS:
            return found[0]
        return f"{name}={found['value']}" if found["value"] else name

    return MENTIONED.sub(keyword, message)


def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one place is the other, or in it."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]
