"""Labels as classes: their order, numbers among them, and labels that look like one another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

# Longer ones are ids rather than classes, and Python refuses to read very long numbers.
_INTEGER = re.compile(r"[+-]?[0-9]{1,50}")
_WHOLE = re.compile(r"(?P<integer>[+-]?[0-9]{1,50})\.0+")

# Format and control characters such as the zero-width space U+200B; variation selectors are marks.
_INVISIBLE = ("Cf", "Cc")
_VARIATIONS = range(0xFE00, 0xFE10)


def several(labels: np.ndarray | torch.Tensor) -> bool:
    """Whether these are sets of labels, a matrix of shape (rows, labels), and not one class a text."""
    return labels.ndim == 2


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """The labels in the order of their classes: by number where all are integers, else as text."""
    present = list(labels)
    if all(map(_INTEGER.fullmatch, present)):
        return sorted(present, key=lambda label: (int(label), label))
    return sorted(present)


def whole_numbers(labels: Collection[str]) -> dict[str, str]:
    """Each label → its name: "5.0" is "5" where all labels are whole numbers, as JSON and Parquet give it.

    Other labels are their own names: "1.0" beside "1.1" or "1.0-beta" may be a version.
    """
    names = {label: _as_integer(label) for label in labels}
    return names if all(map(_INTEGER.fullmatch, names.values())) else {label: label for label in labels}


def known_labels(labels: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Each of the labels that a classifier knows → its name there; "5" and "5.0" are one unless it knows both."""
    by_number: dict[str, list[str]] = {}
    for name in known:
        by_number.setdefault(_as_integer(name), []).append(name)
    found = {}
    for label in labels:
        same = [label] if label in known else by_number.get(_as_integer(label), [])
        if len(same) == 1:
            found[label] = same[0]
    return found


def similar_labels(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that are equal but for case, blanks, invisible characters or Unicode's way of writing them.

    So are "5" and "5.0".
    """
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(_look(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def told_apart(labels: Collection[str]) -> list[str]:
    """The labels in quotes, in a way that shows in what similar ones differ: é and e + U+0301 look alike."""
    looks = {unicodedata.normalize("NFC", label) for label in labels}
    # repr() escapes invisible characters, but not accents.
    return [repr(label) if len(looks) == len(labels) else ascii(label) for label in labels]


def _as_integer(label: str) -> str:
    whole = _WHOLE.fullmatch(label)
    return whole["integer"] if whole else label


def _look(label: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _as_integer(label)).casefold())
    return "".join(c for c in text if not (c.isspace() or _is_invisible(c)))


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE or ord(character) in _VARIATIONS
