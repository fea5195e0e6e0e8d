"""The terminal that the commands print to. What a text says to the terminal itself never reaches it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# All control characters but the tab and the line end. An escape sequence in somebody's label or file name could
# otherwise move the cursor, change the window's title or hide what stands beside it.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainConsole(Console):
    """A console that shows control characters in texts as `?`; rich's own colours and cursor moves stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Lay out as rich does, without the texts' control characters."""
        for segment in super().render(renderable, options):
            if segment.control or not CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(CONTROL.sub("?", segment.text), segment.style)


console = PlainConsole(highlight=False)


def print_json(value: Any) -> None:
    """Print JSON for other programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
