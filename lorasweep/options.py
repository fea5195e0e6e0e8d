"""The options of a sweep: one for each field of `SweepConfig`, for the command line and for Python alike.

To add an option of `lorasweep run`, add a field to the settings it belongs to (`training/settings.py`,
`tuning/record/config.py`): its name, type, default and description become the option, its help and the keyword of
`lorasweep.run`. Only a name that would be unclear outside its group is changed here, in `RENAMED`.

Imported for `--help` too: nothing heavy.
"""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Settings
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.sweep.moved import MOVABLE

# The place of a field in a `SweepConfig` → the name of its option, where that is not the field's own.
RENAMED: dict[tuple[str, ...], str] = {
    ("data", "path"): "data",
    ("data", "validation_path"): "validation",
    ("data", "test_path"): "test",
    ("choice", "rule"): "choose",
    ("choice", "margin"): "within",
    ("registry", "name"): "register",
    ("registry", "enabled"): "no_register",
}
# Options that say no where their field says yes, and what they do.
NEGATED = {"no_register": "Keep the winner out of MLflow's model registry."}
# Their defaults depend on other settings: the demonstration has another space, and trains the untuned settings.
DEPENDENT = ("space", "compare_untuned")
# Groups of options in the order of the help: the first key of a place → the group; `Record` for any other.
PANELS = {
    "data": "Data",
    "base_model": "Model and training",
    "training": "Model and training",
    "search": "Search",
    "choice": "Winner",
    "compare_untuned": "Winner",
    "resources": "Resources",
}
RECORD = "Record"


@dataclass(frozen=True)
class Option:
    """One option of a sweep.

    Attributes:
        name: the keyword in Python; with dashes, the option of the command line.
        place: the keys of its value in a `SweepConfig`.
        kind: the type of one value: str, int, float or bool.
        many: whether it takes several values.
        choices: the only values allowed; empty if any value of its type is.
        default: used when the option is left out; None if there is none, or if it depends on other settings.
        help: one sentence that says what it does.
        panel: the group of options that it is shown in.
    """

    name: str
    place: tuple[str, ...]
    kind: type
    many: bool
    choices: tuple[str, ...]
    default: Any
    help: str
    panel: str

    @property
    def flag(self) -> str:
        """The option as the command line spells it."""
        return f"--{self.name.replace('_', '-')}"


def _options(settings: type[Settings], above: tuple[str, ...] = ()) -> Iterator[Option]:
    for name, field in settings.model_fields.items():
        place, annotation = (*above, name), field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            yield from _options(annotation, place)
        else:
            yield _option(place, field)


def _option(place: tuple[str, ...], field: FieldInfo) -> Option:
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    many = get_origin(annotation) is tuple
    kind = str if choices or many else annotation
    name = RENAMED.get(place, place[-1])
    none = field.is_required() or name in NEGATED or name in DEPENDENT
    about = NEGATED.get(name) or field.description or ""
    panel = PANELS.get(place[0], RECORD)
    return Option(name, place, kind, many, choices, None if none else field.default, about, panel)


OPTIONS: dict[str, Option] = {
    option.name: option
    for option in sorted(_options(SweepConfig), key=lambda o: [*PANELS.values(), RECORD].index(o.panel))
}
"""All options by name, group by group."""

COMPARE_OPTIONS = [
    name
    for name, option in OPTIONS.items()
    if option.place[0] in ("data", "base_model", "training", "tracking_uri") and name != "precision"
]
"""Those of the sweep that a comparison runs; the others would not change what is compared."""
COMPARE_OPTIONS += ["space", "trials"]

RESUME_OPTIONS = [name for name, option in OPTIONS.items() if option.place in MOVABLE or name == "storage"]
"""Those that may differ each time that a sweep goes on; its storage only in how it is reached."""


def to_entries(options: Mapping[str, Any]) -> dict[str, Any]:
    """The nested mapping that a `SweepConfig` is built from; options that are None are left out.

    Raises:
        SettingsError: there is no option of this name; the most similar one is named.
    """
    entries: dict[str, Any] = {}
    for name, value in options.items():
        if name not in OPTIONS:
            raise SettingsError(f"{name}: there is no such option{_similar(name)}; see help(lorasweep.run)")
        if value is None or value == []:
            continue
        option = OPTIONS[name]
        *groups, key = option.place
        place = entries
        for group in groups:
            place = place.setdefault(group, {})
        if option.many:
            value = split_names(value)
        place[key] = not value if name in NEGATED else value
    return entries


def split_names(value: str | list[str] | tuple[str, ...]) -> list[str]:
    """Names that were given one by one, or with commas between them; one in quotes may hold commas itself."""
    values = [value] if isinstance(value, str) else value
    parts = (
        next(csv.reader([part], skipinitialspace=True)) if '"' in part else part.split(",") for part in values
    )
    return [name.strip() for names in parts for name in names if name.strip()]


def show_options(function: Callable[..., Any], names: Iterable[str]) -> None:
    """Show options in the signature and docstring of a function that takes them as `**options`."""
    own = inspect.signature(function).parameters
    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=OPTIONS[name].kind)
        for name in names
        if name not in own
    ]
    parameters = [p for p in own.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    function.__signature__ = inspect.Signature([*parameters, *made])  # type: ignore[attr-defined]
    lines = "\n".join(f"        {name}: {help_line(OPTIONS[name])}" for name in names)
    function.__doc__ = f"{function.__doc__}\n    Options:\n{lines}\n    "


def _similar(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, OPTIONS, n=1)
    return f", did you mean {close[0]}?" if close else ""


def help_line(option: Option) -> str:
    """What the option does, what it may be, and what it is if left out."""
    choices = f" One of {', '.join(option.choices)}." if option.choices else ""
    default = (
        "" if any(option.default is none for none in (None, False, ())) else f" [{_shown(option.default)}]"
    )
    return f"{option.help}{choices}{default}"


def _shown(default: Any) -> str:
    return "on" if default is True else str(default)
