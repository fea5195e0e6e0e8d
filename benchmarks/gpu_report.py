"""What the checks of `gpu.py` find, as lines of JSON, a table for a terminal, and Markdown."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common import table as markdown

HEAD = ("what", "expected", "seen", "")
# Widths of the columns; with what separates them 100 characters.
WIDTHS = (35, 20, 34, 4)


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        what: was looked at.
        expected: in words; empty for a figure that nothing is expected of.
        seen: in words.
        passed: None for a figure, and for what cannot be told on this machine.
        figures: the same as numbers.
        check: the check that found it.
    """

    what: str
    expected: str
    seen: str
    passed: bool | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    check: str = ""

    @property
    def mark(self) -> str:
        """`pass`, `fail` or a dash."""
        return "-" if self.passed is None else "pass" if self.passed else "fail"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """As a row of the table."""
        return self.what, self.expected or "-", self.seen, self.mark


def append(path: Path, finding: Finding) -> None:
    """Add a finding to a file of JSON lines, at once on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(finding), default=str) + "\n")


def read(path: Path) -> list[Finding]:
    """The findings in a file of JSON lines; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Finding(**json.loads(line)) for line in lines]


def terminal_table(findings: Sequence[Finding]) -> str:
    """A table of at most 100 columns; long cells take several lines."""
    rows = [HEAD, tuple("-" * width for width in WIDTHS), *(finding.cells for finding in findings)]
    return "\n".join(line for row in rows for line in _lines(row))


def _lines(row: Sequence[str]) -> list[str]:
    columns = [
        textwrap.wrap(cell, width, break_on_hyphens=False) or [""]
        for cell, width in zip(row, WIDTHS, strict=True)
    ]
    height = max(len(column) for column in columns)
    padded = [column + [""] * (height - len(column)) for column in columns]
    lines = zip(*padded, strict=True)
    return ["  ".join(f"{c:{w}}" for c, w in zip(line, WIDTHS, strict=True)).rstrip() for line in lines]


def markdown_table(findings: Sequence[Finding]) -> str:
    """The same as a Markdown table."""
    return markdown(HEAD, [finding.cells for finding in findings])


def summary(findings: Sequence[Finding]) -> str:
    """How many passed, failed, and are figures alone."""
    marks = [finding.mark for finding in findings]
    return f"{marks.count('pass')} passed, {marks.count('fail')} failed, {marks.count('-')} figures"


def write_json(path: Path, findings: Sequence[Finding], facts: dict[str, Any]) -> None:
    """All of a run as one JSON file."""
    entries = facts | {"findings": [asdict(finding) for finding in findings]}
    path.write_text(json.dumps(entries, indent=1, default=str) + "\n", encoding="utf-8")
