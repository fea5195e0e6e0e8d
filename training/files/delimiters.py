"""What separates the columns of a CSV or TSV file: as users write it, and what a file seems to use."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import islice

from lorasweep.training.errors import SettingsError

NAMES = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
"""Delimiters by name, for shells in which the character is awkward."""

USUAL = (",", ";", "\t", "|")
_FIRST_ROWS, _FIRST_LINES = 50, 1000
"""Rows that show which delimiter a file uses, and lines that they may take."""


def as_delimiter(given: str) -> str:
    """The one character that `given` is or names.

    Raises:
        SettingsError: more than one, or one that cannot separate columns.
    """
    delimiter = NAMES.get(given.lower(), given)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise SettingsError(
            f"--delimiter {given!r}: give one character, or one of {', '.join(n for n in NAMES if n.isalpha())}"
        )
    return delimiter


def described(delimiter: str) -> str:
    """As messages call it: "tab-separated", "separated by ';'"."""
    named = {",": "comma-separated", "\t": "tab-separated"}
    return named.get(delimiter, f"separated by {delimiter!r}")


def option(delimiter: str) -> str:
    """The option that sets it, as one types it in a shell."""
    names = {character: name for name, character in NAMES.items() if name.isalpha() and character.isspace()}
    return f"--delimiter {names.get(delimiter, repr(delimiter))}"


def likely_delimiter(lines: Iterable[str], but: str) -> str | None:
    """The one usual delimiter, other than `but`, that cuts the first lines into equally many columns."""
    first = list(islice(lines, _FIRST_LINES))
    cut = [delimiter for delimiter in USUAL if delimiter != but and _cuts(first, delimiter)]
    return cut[0] if len(cut) == 1 else None


def hint(names: Sequence[str]) -> str:
    """What to try where the columns' names hold a usual delimiter; empty if none does."""
    # A comma may well be part of one name among several.
    usual = [delimiter for delimiter in USUAL if delimiter != "," or len(names) == 1]
    held = [delimiter for delimiter in usual if any(delimiter in name for name in names)]
    if len(held) != 1:
        return ""
    return f"; if {held[0]!r} separates the columns, add {option(held[0])}"


def _cuts(lines: Sequence[str], delimiter: str) -> bool:
    try:
        rows = islice(csv.reader(lines, delimiter=delimiter, strict=True), _FIRST_ROWS)
        widths = {len(fields) for fields in rows if fields}
    except csv.Error:
        return False
    return len(widths) == 1 and widths.pop() > 1
