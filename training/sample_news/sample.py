"""A small made-up news corpus in the HuffPost format: deterministic, and not too easy.

Word lists and sentence patterns are in `sample_words.yaml`. The slots of a pattern:

    {person} {people} {body} {agent}    someone of the row's class: one, several, an organisation, either
    {brand}                             an organisation with an invented name
    {subject} {event}                   what a text of the class is about; what has happened
    {do_over} {does_over} {do} {does}   what several or one do about it; the same words in every class
    {anyone} {anyones}                  people who appear in every class
    {name} {place} {time} {past} {n}    an invented name or place, a future or past time, a number

The prefix `a_` adds an article, `other_` takes the word from the second class of a crossed row.

What makes it hard: nouns that all classes share (trial, court, cell, record ...), more words than the training rows
can hold, rows with at most one telling word outside the description, stories that cross two classes, and a few that
nobody could classify.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Final

import pandas as pd

from lorasweep.training.errors import SettingsError
from lorasweep.training.files.yaml_file import parse_yaml

COLUMNS: Final = ("link", "headline", "category", "short_description", "authors", "date")
CATEGORIES: Final = (
    "POLITICS",
    "ENTERTAINMENT",
    "HEALTH",
    "SPORTS",
    "BUSINESS",
    "TECHNOLOGY",
    "SCIENCE",
)
"""The classes, largest first."""

# Kinds of rows: share in percent, headlines, descriptions. Chosen by hand so that a tuned adapter on MiniLM-L6
# scores 80 to 93 % with 1,200 training rows; the tests hold that range.
_KINDS: Final = (
    (12, "plain", "details"),
    (20, "plain", "plain"),
    (11, "thin", "plain"),
    (20, "thin", "bare"),
    (9, "twists", "bare"),
    (16, "crossed", "settled"),
    (7, "crossed", "plain"),
    (5, "crossed", "bare"),
)
_NEWEST: Final = date(2025, 6, 30)
_DAYS: Final = 730


@cache
def _words() -> dict[str, Any]:
    text = files("lorasweep.training.sample_news").joinpath("sample_words.yaml").read_text(encoding="utf-8")
    return parse_yaml(text, "sample_words.yaml")


def _with_article(noun: str) -> str:
    # A written u or o may sound like a consonant: a union, a one-off.
    vowel = noun[0].lower() in "aeiou" and not noun.lower().startswith(("uni", "use", "one"))
    return f"an {noun}" if vowel else f"a {noun}"


def _plural(noun: str) -> str:
    if noun.endswith("man"):
        return noun[:-2] + "en"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def _third_person(phrase: str) -> str:
    verb, _, rest = phrase.partition(" ")
    return f"{verb}{'es' if verb.endswith(('s', 'sh', 'ch', 'go')) else 's'} {rest}".strip()


class _Writer:
    """Fills patterns with words, drawn by its own generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._shared: dict[str, list[str]] = _words()["shared"]
        self._classes: dict[str, dict[str, list[str]]] = _words()["classes"]

    def pick(self, options: Sequence[str]) -> str:
        # Python guarantees the same stream in every version for random() alone.
        return options[int(self._random.random() * len(options))]

    def weighted(self, weights: Sequence[int]) -> int:
        """Index of a weight, drawn in proportion to it."""
        point = self._random.random() * sum(weights)
        for index, weight in enumerate(weights):
            point -= weight
            if point < 0:
                return index
        return len(weights) - 1

    def name(self) -> str:
        return f"{self.pick(self._shared['firsts'])} {self.pick(self._shared['lasts'])}"

    def fill(self, pattern: str, category: str, other: str) -> str:
        """One sentence: all slots filled, the first letter upper case."""

        def word(match: re.Match[str]) -> str:
            article, second, slot = match.groups()
            text = self._word(slot, self._classes[other if second else category])
            return _with_article(text) if article else text

        sentence = re.sub(r"\{(a_)?(other_)?(\w+)\}", word, pattern)
        return sentence[0].upper() + sentence[1:]

    def _word(self, slot: str, own: dict[str, list[str]]) -> str:
        if slot == "agent":
            slot = "person" if self._random.random() < 0.6 else "body"
        if slot == "name":
            return self.name()
        if slot == "n":
            return str(4 + int(self._random.random() * 36))
        if slot == "brand":
            return f"{self.pick(self._shared['roots'])} {self.pick(own['suffixes'])}"
        if slot in ("does", "does_over"):
            return _third_person(self.pick(self._shared[slot.replace("does", "do")]))
        if slot in ("place", "time", "past"):
            return self.pick(self._shared[f"{slot}s"])
        if slot == "anyones":
            return _plural(self.pick(self._shared["anyone"]))
        if slot == "people":
            return _plural(self.pick(own["people"]))
        if slot == "person":
            return self.pick(own["people"])
        if slot == "body":
            return self.pick(own["bodies"])
        return self.pick(own[f"{slot}s"]) if f"{slot}s" in own else self.pick(self._shared[slot])

    def row(self) -> tuple[str, str, str]:
        """Headline, category and description of one text."""
        category = CATEGORIES[self.weighted([int(_words()["classes"][name]["share"]) for name in CATEGORIES])]
        own = self._classes[category]
        _, headlines, descriptions = _KINDS[self.weighted([share for share, _, _ in _KINDS])]
        other = self.pick(own["meets"])
        headline = self.pick(own[headlines] if headlines in own else _words()["headlines"][headlines])
        description = self.pick(
            own[descriptions] if descriptions in own else _words()["descriptions"][descriptions]
        )
        return self.fill(headline, category, other), category, self.fill(description, category, other)


def sample_news(rows: int = 3600, seed: int = 0) -> pd.DataFrame:
    """A made-up corpus of short news texts in seven unequal classes.

    Nothing in it is true and nobody in it exists. The same `rows` and `seed` give the same bytes on every machine.

    Args:
        rows: number of texts, at least 1. No two have the same headline and description.
        seed: another seed gives another corpus of the same kind.

    Returns:
        `rows` rows, newest first, with HuffPost's keys as string columns: `link`, `headline` (about 9 words),
        `category` (one of `CATEGORIES`), `short_description` (about 13 words), `authors` and `date` (ISO).

    Raises:
        SettingsError: `rows` is below 1.
    """
    if rows < 1:
        raise SettingsError(f"the sample news cannot have {rows} rows; use at least 1")
    writer = _Writer(seed)
    seen: set[tuple[str, str]] = set()
    records: list[tuple[str, ...]] = []
    while len(records) < rows:
        headline, category, description = writer.row()
        if (headline, description) in seen:
            continue
        seen.add((headline, description))
        slug = re.sub(r"[^a-z0-9]+", "-", headline.lower()).strip("-")
        link = f"https://example.com/news/{slug}-{len(records) + 1:05d}"
        day = _NEWEST - timedelta(days=len(records) * _DAYS // rows)
        records.append((link, headline, category, description, writer.name(), day.isoformat()))
    return pd.DataFrame(records, columns=list(COLUMNS))
