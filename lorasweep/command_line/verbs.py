"""How a verb is called and its help drawn: a flag has no type, and brackets in a text are brackets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup, TyperOption

from lorasweep.spelling import on_command_line


def _written_formats() -> str:
    from lorasweep.training.files.formats import FORMATS

    *others, last = [suffix for suffix, entry in FORMATS.items() if entry.write is not None]
    return f"{', '.join(others)} or {last}"


# Words in a help text that stand for what only a slow import knows: it waits until the help is drawn.
FILLED: dict[str, Callable[[], str]] = {"{written formats}": _written_formats}


def _prepare(command: Any, context: Any) -> None:
    """Make a command's options ready to be drawn by rich, once."""
    for option in command.get_params(context):
        if not isinstance(option, TyperOption) or getattr(option, "drawn", False):
            continue
        option.drawn = True  # type: ignore[attr-defined]
        if option.is_flag:
            # Typer would show `<bool>`, as if a value had to follow.
            option.metavar = ""
        for words, text in FILLED.items():
            if words in (option.help or ""):
                option.help = (option.help or "").replace(words, text())
        # Rich would take [auto] for a tag and print nothing.
        option.help = escape(option.help or "")


class Verb(TyperCommand):
    """A verb whose messages name options as they are typed, and whose help shows what stands in it."""

    def invoke(self, ctx: Any) -> Any:
        """Call the verb."""
        with on_command_line():
            return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Draw the help."""
        _prepare(self, ctx)
        super().format_help(ctx, formatter)


class Verbs(TyperGroup):
    """A group of verbs."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Draw the help."""
        _prepare(self, ctx)
        super().format_help(ctx, formatter)


class App(typer.Typer):
    """A typer app whose verbs are `Verb`s."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Verbs, rich_markup_mode="rich", **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Take a function as a verb; see `typer.Typer.command`."""
        return super().command(name, **{"cls": Verb} | settings)
