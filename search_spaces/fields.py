"""The names a search space may use: the fields of `Hyperparameters`, and what each of them takes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from lorasweep.training.errors import SettingsError
from lorasweep.training.model.target_modules import compile_pattern, is_preset
from lorasweep.training.settings import Hyperparameters

TYPE_NAMES = {"integer": "a whole number", "number": "a number", "string": "text", "null": "null"}
BOUNDS = {
    "minimum": "at least {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "at most {:g}",
    "exclusiveMaximum": "below {:g}",
}


@cache
def _schema() -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = Hyperparameters.model_json_schema()["properties"]
    return properties


def field_names() -> tuple[str, ...]:
    """Names of all hyperparameters, in the order in which they are documented."""
    return tuple(Hyperparameters.model_fields)


def short_names() -> dict[str, str]:
    """Names for narrow tables, of the hyperparameters that have one."""
    return {name: schema["short"] for name, schema in _schema().items() if "short" in schema}


def adapter_settings() -> tuple[str, ...]:
    """Hyperparameters that full fine-tuning has no use for, whatever was drawn for them."""
    return tuple(name for name, schema in _schema().items() if schema.get("adapter_only"))


def goes_with(name: str) -> dict[str, str]:
    """Values of other hyperparameters without which `name` has no use; empty for most."""
    needed: dict[str, str] = _schema()[name].get("goes_with", {})
    return needed


def bounds(name: str) -> tuple[float, float]:
    """The lowest and the highest number that the hyperparameter `name` takes, or where it stops taking any."""
    options = _schema()[name].get("anyOf", [_schema()[name]])
    lows = [option[key] for option in options for key in ("minimum", "exclusiveMinimum") if key in option]
    highs = [option[key] for option in options for key in ("maximum", "exclusiveMaximum") if key in option]
    return min(lows, default=-math.inf), max(highs, default=math.inf)


def takes_fractions(name: str) -> bool:
    """False for a hyperparameter that takes whole numbers only."""
    return _schema()[name].get("type") != "integer"


def allowed(name: str) -> str:
    """What the hyperparameter `name` takes, in words: "a whole number, at least 1 and at most 1024"."""
    schema = _schema()[name]
    return ", or ".join(_in_words(option, schema) for option in schema.get("anyOf", [schema]))


def _in_words(option: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "enum" in option:
        return "one of " + ", ".join(option["enum"])
    words = TYPE_NAMES[option["type"]]
    limits = [text.format(option[key]) for key, text in BOUNDS.items() if key in option]
    if option["type"] == "string":
        return f"{words} ({schema['description']})"
    return f"{words}, {' and '.join(limits)}" if limits else words


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a message, such as " (did you mean rank?)", or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def check_name(name: object) -> None:
    """Raise `SettingsError` unless `name` is a hyperparameter."""
    if name not in Hyperparameters.model_fields:
        names = field_names()
        hint = nearest(str(name), names)
        raise SettingsError(f"{name}: not a hyperparameter{hint}; allowed are {', '.join(names)}")


def check_value(name: str, value: object) -> None:
    """Raise `SettingsError` unless the hyperparameter `name` takes `value` as it is written.

    Stricter than pydantic: `"8"`, `8.0` and `true` are not ranks. A pattern for target modules must compile;
    whether it matches anything depends on the model.
    """
    check_name(name)
    try:
        Hyperparameters.model_validate({name: value}, strict=True)
    except ValidationError:
        raise _refusal(name, value) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _refusal(name, value)
    if name == "target_modules" and isinstance(value, str) and not is_preset(value):
        try:
            compile_pattern(value)
        except SettingsError as error:
            raise SettingsError(f"{name}: {error}") from None


def make_hyperparameters(values: Mapping[str, Any]) -> Hyperparameters:
    """Validated hyperparameters from `values`; the rest keeps its defaults.

    Raises `SettingsError` with the first name or value that is not allowed.
    """
    for name in values:
        check_name(name)
    try:
        return Hyperparameters.model_validate(dict(values))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise _refusal(name, values[name]) from None


def _refusal(name: str, value: object) -> SettingsError:
    written = "null" if value is None else repr(value)
    return SettingsError(f"{name}: {written} is not allowed; it takes {allowed(name)}")
