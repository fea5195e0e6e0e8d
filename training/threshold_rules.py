"""How a threshold may be named. It imports nothing heavy, as the command line reads it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

RULES = ("f1", "balanced_accuracy", "mcc")
"""Scores that a threshold may be chosen by."""


def check_threshold(text: str) -> str:
    """A rule of `RULES` or a number between 0 and 1. Raises `ValueError` for anything else."""
    if text in RULES or fixed_threshold(text) is not None:
        return text
    raise ValueError(f"use {', '.join(RULES)}, or a number between 0 and 1")


Threshold = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, float) else value),
    AfterValidator(check_threshold),
]


def fixed_threshold(text: str | None) -> float | None:
    """The number that a threshold is given as; None for one that is to be chosen."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < 1 else None
