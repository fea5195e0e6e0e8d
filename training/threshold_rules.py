"""How a threshold may be named. It imports nothing heavy, as the command line reads it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

RULES = ("f1", "balanced_accuracy", "mcc")
"""Scores that the threshold of two classes may be chosen by."""
BETAS = {"f1": 1.0, "f0.5": 0.5, "f2": 2.0}
"""F-beta scores that the thresholds of several labels a text may be chosen by → how much more recall counts."""
DEFAULT_RULE = "f1"
NONE = "none"
"""One half for each of several labels."""
SET_RULES = (*BETAS, NONE)


def check_threshold(text: str) -> str:
    """A rule of `RULES` or `SET_RULES`, or a number between 0 and 1. Raises `ValueError` for anything else."""
    if fits_two(text) or fits_sets(text):
        return text
    rules = dict.fromkeys((*RULES, *SET_RULES))
    raise ValueError(f"use {', '.join(rules)}, or a number between 0 and 1")


def fits_two(text: str) -> bool:
    """Whether a threshold of two classes may be named so."""
    return text in RULES or fixed_threshold(text) is not None


def fits_sets(text: str) -> bool:
    """Whether the thresholds of several labels may be named so."""
    return text in SET_RULES or fixed_threshold(text) is not None


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
