"""Known-good settings that a sweep tries first: how they are written, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorasweep.search_spaces.domains import Domain, Value, show
from lorasweep.search_spaces.fields import check_value, nearest, short_names
from lorasweep.training.errors import SettingsError

# A start that does not name it takes the sweep's own, which a plan puts in.
BASE_MODEL = "base_model"

Start = Mapping[str, Value]
"""A value for each searched name but the base model; it may repeat constants."""


def take_starts(entries: dict[str, Any]) -> tuple[Any, ...]:
    """Take `starts:`, a list of settings, or `start:`, one, out of what a space's YAML holds.

    Raises `SettingsError` when both are there, or either is of another kind. `check_starts` judges the settings.
    """
    one, many = entries.pop("start", {}), entries.pop("starts", ())
    if one and many:
        raise SettingsError("start and starts: both are given; put all settings into the list under starts")
    if not isinstance(one, Mapping):
        raise SettingsError(
            f"start: {one!r} is not a mapping; write {{rank: 16, ...}}, or several of them as a list under starts"
        )
    if not isinstance(many, list | tuple):
        raise SettingsError(f"starts: {many!r} is not a list; write one `- {{rank: 16, ...}}` a line")
    return tuple(many) or ((dict(one),) if one else ())


def check_starts(starts: Sequence[Start], parameters: Mapping[str, Domain | Value]) -> None:
    """Raise `SettingsError`, with the entry's place, unless all starts lie in the space and differ."""
    searched = [name for name, domain in parameters.items() if isinstance(domain, Domain)]
    seen: list[list[Value]] = []
    for number, start in enumerate(starts, start=1):
        try:
            if not isinstance(start, Mapping):
                raise SettingsError(f"{start!r} is not a mapping; write {{rank: 16, ...}}")
            _check_inside(start, parameters)
            values = [start.get(name) for name in searched]
            if values in seen:
                raise SettingsError(f"the same as entry {seen.index(values) + 1}; name each start once")
            seen.append(values)
        except SettingsError as error:
            place = "start" if len(starts) == 1 else f"starts, entry {number}"
            raise SettingsError(f"{place}: {error}") from None


def _check_inside(start: Start, parameters: Mapping[str, Domain | Value]) -> None:
    for name, value in start.items():
        if name not in parameters:
            raise SettingsError(
                f"{name} is not in this space{nearest(name, parameters)}; it has {', '.join(parameters)}"
            )
        check_value(name, value)
        domain = parameters[name]
        if isinstance(domain, Domain):
            if value not in domain:
                raise SettingsError(f"{name}: {show(value)} is outside the space; it has {domain}")
        elif value != domain:
            raise SettingsError(
                f"{name}: {show(value)} is outside the space, where it is always {show(domain)}"
            )
    missing = [
        name
        for name, domain in parameters.items()
        if isinstance(domain, Domain) and name not in start and name != BASE_MODEL
    ]
    if missing:
        raise SettingsError(f"no value for {', '.join(missing)}; give one for each searched name")


def starts_text(points: Sequence[Start]) -> str:
    """The first start and how many follow: "rank 16, alpha 32, rate 2e-3; and 2 more"."""
    first = ", ".join(f"{short_names().get(name, name)} {show(value)}" for name, value in points[0].items())
    return f"{first}; and {len(points) - 1} more" if len(points) > 1 else first
