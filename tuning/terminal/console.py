"""The console that the commands print to. Control characters in texts never reach the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

# All control characters except tab and newline. An escape sequence in a label or a file name could otherwise move the
# cursor, change the window's title or hide other text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainConsole(Console):
    """A console that prints control characters in texts as `?`; rich's own colours and cursor moves work."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, without the texts' control characters."""
        for segment in super().render(renderable, options):
            if segment.control or not CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(CONTROL.sub("?", segment.text), segment.style)


# Lines are left to the terminal to break: one that rich had broken could not be copied, nor found with grep.
console = PlainConsole(highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON for other programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def next_steps(console: Console, steps: Sequence[tuple[str, str]]) -> None:
    """Print the next commands, each below what it does, so that one or all can be copied into a shell.

    Args:
        steps: command and what it does; without the second it goes with the command before it.
    """
    for command, what in steps:
        if what:
            console.print(f"\n[dim]# {escape(what)}[/dim]", soft_wrap=True)
        # Whole, however long: a command that rich broke into lines would be several commands.
        console.print(f"[cyan]{escape(command)}[/cyan]", soft_wrap=True)
