"""Base models that a search space may choose, and the sweep's own among them."""

from __future__ import annotations

from dataclasses import replace

from lorasweep.search_spaces.domains import Choice, Domain, Value, show
from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import Space
from lorasweep.search_spaces.starts import BASE_MODEL
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import folder_in_full


def base_models(space: Space) -> tuple[str | None, ...]:
    """Every base model that a space can propose, None for the sweep's own; empty where it names none."""
    if isinstance(space, FunctionSpace):
        return space.base_models
    if BASE_MODEL not in space.parameters:
        return ()
    written = space.parameters[BASE_MODEL]
    values = written.values if isinstance(written, Choice) else (written,)
    return tuple(value for value in values if value is None or isinstance(value, str))


def settle_bases(space: Space, own: str, given: bool) -> tuple[Space, str]:
    """A space whose base models are named in full, also in each start, and the sweep's own base model.

    Folders get their full path, as a sweep is resumed from elsewhere. Where nobody has asked for a base model of the
    sweep's own and the space does not choose it, the first of the space's takes its place.

    Args:
        own: the sweep's own base model.
        given: whether somebody has asked for it.

    Raises:
        SettingsError: a base model stands twice, the one that was asked for is never used, or a start without one has
            none to fall back on.
    """
    choices = base_models(space)
    if not choices:
        return space, own
    named = [folder_in_full(name) for name in choices if name is not None]
    if None not in choices and own not in named:
        if given:
            raise SettingsError(
                f"--base-model {own}: the space never uses it, as its base_model is {', '.join(named)}; leave it out, "
                "or add it to the choice"
            )
        own = named[0]
    if isinstance(space, FunctionSpace):
        for name in choices:
            if name is not None and (full := folder_in_full(name)) != name:
                raise SettingsError(
                    f"base_model: {name} holds in this folder only; let the function name {full}"
                )
        return space, own
    parameters = {
        name: _in_full(value) if name == BASE_MODEL else value for name, value in space.parameters.items()
    }
    fallback: Value = None if None in choices else own
    starts = tuple(
        {BASE_MODEL: fallback}
        | {name: _full(value) if name == BASE_MODEL else value for name, value in start.items()}
        for start in space.starts
    )
    return replace(space, parameters=parameters, starts=starts), own


def _in_full(written: Domain | Value) -> Domain | Value:
    if not isinstance(written, Choice):
        return written if isinstance(written, Domain) else _full(written)
    values = [_full(value) for value in written.values]
    for place, value in enumerate(values):
        if value in values[:place]:
            raise SettingsError(
                f"base_model: {show(value)} stands twice in the choice; name each base model once"
            )
    return Choice(tuple(values))


def _full(value: Value) -> Value:
    return folder_in_full(value) if isinstance(value, str) else value
