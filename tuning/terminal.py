"""The terminal that the commands print to."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console

console = Console(highlight=False)


def print_json(value: Any) -> None:
    """Print JSON for other programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
