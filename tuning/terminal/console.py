"""The console that the commands print to. What a terminal should not or cannot show never reaches it."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

# All control characters except tab and newline. An escape sequence in a label or a file name could otherwise move the
# cursor, change the window's title or hide other text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# What a shell reports of a program that SIGPIPE ended.
READER_GONE = 141


class PlainConsole(Console):
    """A console that prints `?` for control characters in texts, and for what its file's encoding lacks.

    Rich's own colours and cursor moves work.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with `?` for what the terminal should not or cannot show."""
        encoding = self.encoding
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and not CONTROL.search(segment.text)):
                yield segment
            else:
                text = CONTROL.sub("?", segment.text).encode(encoding, "replace").decode(encoding)
                yield Segment(text, segment.style)

    def on_broken_pipe(self) -> NoReturn:
        """End quietly where whoever read the output has gone, as `head` does after its lines.

        Raises:
            SystemExit: with 141. A running sweep is left as after Ctrl-C.
        """
        self.quiet = True
        discard_output()
        raise SystemExit(READER_GONE)


# Lines are left to the terminal to break: one that rich had broken could not be copied, nor found with grep.
console = PlainConsole(highlight=False, soft_wrap=True)


def discard_output() -> None:
    """Send the rest of standard output nowhere: else Python would fail once more as it exits."""
    if sys.stdout is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON for other programs: escaped where standard output is not UTF-8, or the value has no UTF-8."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        utf8 = codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name == "utf-8"
        text.encode("utf-8" if utf8 else "ascii")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    try:
        typer.echo(text)
    except BrokenPipeError:
        console.on_broken_pipe()


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
