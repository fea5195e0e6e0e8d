"""What a check of the training labels has found, as text for 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from lorasweep.training.errors import counted
from lorasweep.tuning.record.label_check import LabelCheck, SuspectLabel
from lorasweep.tuning.record.words import one_line

# Rows and pairs of classes that are shown.
MOST_ROWS, MOST_PAIRS = 10, 3
# What is longer is cut: so wide, the table fits 80 columns.
TEXT_WIDTH, LABEL_WIDTH, PAIR_WIDTH = 36, 15, 28


def label_check_text(check: LabelCheck) -> RenderableType:
    """The estimated share of wrong labels, the classes that are confused, and the most suspicious rows."""
    settings, suspects = check.settings, check.suspects
    lines = [
        f"{counted(check.rows, 'training row')}, each predicted by {settings.trial}'s settings trained on others",
        f"({settings.folds} folds): {check.accuracy:.1%} as labelled",
        f"estimated share of wrong labels: [bold]{check.share:.1%}[/bold]; "
        f"{counted(len(suspects), 'row')} to check",
    ]
    if check.left_out:
        lines.append(f"{counted(check.left_out, 'row')} not judged: their class is in no other fold")
    if suspects:
        pairs = [
            f"{_short(label)} -> {_short(suggested)} ({counted(rows, 'row')})"
            for label, suggested, rows in check.pairs[:MOST_PAIRS]
        ]
        lines += ["confused most often:", *(f"  {escape(pair)}" for pair in pairs), ""]
    return Group(*lines, *([_table(check)] if suspects else []))


def _table(check: LabelCheck) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("text", no_wrap=True, overflow="ellipsis", max_width=TEXT_WIDTH)
    for name in ("label", "suggested"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=LABEL_WIDTH)
        table.add_column("", justify="right", no_wrap=True)
    for suspect in check.suspects[:MOST_ROWS]:
        table.add_row(
            escape(_text(suspect)),
            escape(one_line(suspect.label)),
            f"{suspect.probability:.0%}",
            escape(one_line(suspect.suggested)),
            f"{suspect.suggested_probability:.0%}",
        )
    return table


def _text(suspect: SuspectLabel) -> str:
    return one_line(" / ".join(filter(None, [suspect.text, suspect.pair])))


def _short(label: str) -> str:
    label = one_line(label)
    return label if len(label) <= PAIR_WIDTH else f"{label[: PAIR_WIDTH - 1]}…"
