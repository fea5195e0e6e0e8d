"""The HuffPost News Category data set: what it holds, and whether a file holds all of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lorasweep.training.data.columns import strings
from lorasweep.training.data.dates import read_dates
from lorasweep.training.errors import DataError, shown
from lorasweep.training.files.whole_tables import read_table

HANDLE: Final = "rmisra/news-category-dataset"
"""On Kaggle."""
PAGE: Final = f"https://www.kaggle.com/datasets/{HANDLE}"
FILE: Final = "News_Category_Dataset_v3.json"
ROWS: Final = 209_527
KEYS: Final = ("link", "headline", "category", "short_description", "authors", "date")
FIRST_YEAR, LAST_YEAR = 2012, 2022
CLASSES: Final = frozenset(
    """
    ARTS|ARTS & CULTURE|BLACK VOICES|BUSINESS|COLLEGE|COMEDY|CRIME|CULTURE & ARTS|DIVORCE|EDUCATION|ENTERTAINMENT
    |ENVIRONMENT|FIFTY|FOOD & DRINK|GOOD NEWS|GREEN|HEALTHY LIVING|HOME & LIVING|IMPACT|LATINO VOICES|MEDIA|MONEY
    |PARENTING|PARENTS|POLITICS|QUEER VOICES|RELIGION|SCIENCE|SPORTS|STYLE|STYLE & BEAUTY|TASTE|TECH
    |THE WORLDPOST|TRAVEL|U.S. NEWS|WEDDINGS|WEIRD NEWS|WELLNESS|WOMEN|WORLD NEWS|WORLDPOST
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)
"""The 42 categories."""


@dataclass(frozen=True)
class HuffPostFile:
    """The contents of a file of the set."""

    file: str
    sha256: str
    """Of the file as it is, packed or not; hexadecimal."""
    bytes: int
    rows: int
    classes: dict[str, int]
    """Category → rows, the largest first."""
    first_date: str
    last_date: str

    def problems(self) -> list[str]:
        """What is missing or unexpected, one phrase each; empty for the whole set."""
        problems = []
        if self.rows != ROWS:
            problems.append(
                f"{self.rows:,} of {ROWS:,} rows" if self.rows < ROWS else f"{self.rows:,} rows, not {ROWS:,}"
            )
        present = CLASSES & self.classes.keys()
        if len(present) < len(CLASSES):
            problems.append(f"{len(present)} of {len(CLASSES)} categories")
        if unknown := sorted(self.classes.keys() - CLASSES):
            problems.append(f"unknown categories {shown(unknown, 4)}")
        if not str(FIRST_YEAR) <= self.first_date[:4] <= self.last_date[:4] <= str(LAST_YEAR):
            problems.append(
                f"dates from {self.first_date} to {self.last_date}, not {FIRST_YEAR} to {LAST_YEAR}"
            )
        return problems

    def write(self, path: Path) -> None:
        """Write this as JSON, so that a later reader can tell whether the file has changed."""
        entries = {"source": PAGE} | asdict(self)
        path.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", "utf-8")


def check_huffpost(path: str | Path) -> HuffPostFile:
    """Read a file of the set, plain or packed, and count what it holds.

    Raises:
        DataError: it cannot be read, or its rows lack one of the set's keys, a category or a date.
    """
    table = read_table(path, max_bad_share=0.0)
    columns = [str(name) for name in table.frame.columns]
    if missing := [key for key in KEYS if key not in columns]:
        raise DataError(
            f"{path}: has no {shown(missing)} in its rows ({shown(columns, 8)}); download the set from {PAGE}"
        )
    categories = strings(table, "category")
    if "" in categories:
        raise DataError(f"{path}, row {categories.index('') + 1}: has no category; download the file again")
    written = strings(table, "date")
    dates = read_dates(written, f"{path}, key 'date'")
    if dates.isna().any():
        row = int(dates.isna().to_numpy().argmax())
        raise DataError(
            f"{path}, row {row + 1}: {shown([written[row]])} is not a date; download the file again"
        )
    with Path(path).expanduser().open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return HuffPostFile(
        file=Path(path).name,
        sha256=digest,
        bytes=size,
        rows=len(categories),
        classes=dict(Counter(sorted(categories)).most_common()),
        first_date=dates.min().strftime("%Y-%m-%d"),
        last_date=dates.max().strftime("%Y-%m-%d"),
    )


def recorded_sha256(path: Path) -> str | None:
    """The sha256 in a record that `HuffPostFile.write` has written; None without one."""
    try:
        return str(json.loads(path.read_text("utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
