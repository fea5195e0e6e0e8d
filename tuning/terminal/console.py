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
from rich.table import Table

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


console = PlainConsole(highlight=False)


def print_json(value: Any) -> None:
    """Print JSON for other programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def next_steps(console: Console, steps: Sequence[tuple[str, str]]) -> None:
    """Print the next commands, each with what it does."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="cyan", overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for number, (command, what) in enumerate(steps):
        table.add_row("next" if number == 0 else "", escape(command), escape(what))
    console.print()
    console.print(table)
