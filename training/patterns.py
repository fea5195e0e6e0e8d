"""Ranks and alphas by pattern, written as one text: a choice of a search space has to be a single value."""

from __future__ import annotations

import math
import re
from functools import partial

HIGHEST_RANK = 1024


def parse_pattern(written: str | None) -> dict[str, float]:
    """What a text such as `query=16,layer.0.*=4` gives to which modules.

    As PEFT reads them, a key is a regular expression for the end of a module's name, from one of its dots on, and the
    first that fits counts. A key has neither a comma nor an equals sign in it.

    Returns:
        Key → number, in the order of the text; empty for None.

    Raises:
        ValueError: with what is wrong.
    """
    found: dict[str, float] = {}
    for entry in [] if written is None else written.split(","):
        key, equals, number = (part.strip() for part in entry.partition("="))
        if not (key and equals and number):
            raise ValueError(f"{entry.strip()!r} is not NAME=NUMBER; write it as query=16,value=8")
        if key in found:
            raise ValueError(f"{key} stands twice; name each once")
        try:
            re.compile(key)
        except re.error as error:
            raise ValueError(f"{key!r} is no regular expression: {error}") from None
        try:
            found[key] = float(number)
        except ValueError:
            raise ValueError(f"{key}={number}: {number!r} is not a number") from None
    return found


def rank_pattern(written: str | None) -> dict[str, int]:
    """Key → rank, of a text that has been checked."""
    return {key: int(number) for key, number in parse_pattern(written).items()}


def _checked(written: str, *, whole: bool) -> str:
    for key, number in parse_pattern(written).items():
        if whole and number not in range(1, HIGHEST_RANK + 1):
            raise ValueError(f"{key}={number:g}: a rank is a whole number from 1 to {HIGHEST_RANK}")
        if not (number > 0 and math.isfinite(number)):
            raise ValueError(f"{key}={number:g}: an alpha is above 0")
    return written


checked_ranks = partial(_checked, whole=True)
checked_alphas = partial(_checked, whole=False)
