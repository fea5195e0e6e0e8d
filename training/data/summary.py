"""What a user should see of the data before a sweep starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from lorasweep.training.data.dataset import Dataset


@dataclass(frozen=True)
class Summary:
    """Counts of rows and classes, read and split."""

    source: str
    rows_read: int
    dropped: dict[str, int]
    left_out_classes: dict[str, int]
    rows: dict[str, int]
    """Split → rows."""
    classes: int
    largest: tuple[str, int]
    """Class with the most rows in all splits, and their number."""
    smallest: tuple[str, int]
    majority_accuracy: float
    """Share of correct test rows when the most frequent training class is always predicted."""
    dates: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Split → first and last day, of a split by date."""
    merged_by: str = ""
    original_classes: int = 0
    """Classes before merging; 0 where no two became one."""
    merged: dict[str, dict[str, int]] = field(default_factory=dict)
    """Merged class → each of its labels → rows in all splits."""


def describe(dataset: Dataset) -> Summary:
    """Count rows and classes."""
    splits = dataset.splits()
    counts = Counter(int(label) for texts in splits.values() for label in texts.labels)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most_frequent = np.bincount(dataset.train.labels).argmax()
    return Summary(
        source=dataset.source,
        rows_read=dataset.rows_read,
        dropped=dataset.dropped,
        left_out_classes=dataset.left_out_classes,
        rows={name: len(texts) for name, texts in splits.items()},
        classes=len(counts),
        largest=(dataset.label_names[ordered[0][0]], ordered[0][1]),
        smallest=(dataset.label_names[ordered[-1][0]], ordered[-1][1]),
        majority_accuracy=float((dataset.test.labels == most_frequent).mean()),
        dates=dataset.dates,
        merged_by=dataset.merged_by,
        original_classes=len(dataset.original_names),
        merged=_merged(dataset),
    )


def _merged(dataset: Dataset) -> dict[str, dict[str, int]]:
    if not dataset.original_names:
        return {}
    parts = [texts.original for texts in dataset.splits().values() if texts.original is not None]
    rows = np.bincount(np.concatenate(parts), minlength=len(dataset.original_names)).tolist()
    groups: dict[str, dict[str, int]] = {}
    for name, count, label in zip(dataset.original_names, rows, dataset.merge_index().tolist(), strict=True):
        groups.setdefault(dataset.label_names[label], {})[name] = count
    return {label: group for label, group in sorted(groups.items()) if list(group) != [label]}


def summary_lines(summary: Summary) -> list[str]:
    """The summary as a few lines of plain text."""
    lines = [f"{summary.source}: {summary.rows_read:,} rows read"]
    lines += lost_lines(summary, limited=True)
    lines.append("rows: " + _counted(summary.rows))
    if summary.dates:
        spans = [f"{split} {first} to {last}" for split, (first, last) in summary.dates.items()]
        lines.append("split by date: " + ", ".join(spans))
    lines += merged_lines(summary)
    (largest, most), (smallest, least) = summary.largest, summary.smallest
    lines.append(f"{summary.classes} classes, from {smallest} ({least:,} rows) to {largest} ({most:,} rows)")
    lines.append(
        f"always predicting the most frequent class: {summary.majority_accuracy:.1%} of the test rows correct"
    )
    return lines


def lost_lines(summary: Summary, *, limited: bool = False) -> list[str]:
    """Rows and classes that were read and are not used.

    Args:
        limited: with the rows beyond a limit that was asked for.
    """
    lines = []
    if dropped := {w: n for w, n in summary.dropped.items() if limited or not w.startswith("beyond ")}:
        lines.append("dropped: " + _counted(dropped))
    if summary.left_out_classes:
        why = "no training row" if summary.dates else "too few rows for every split"
        lines.append(f"classes left out ({why}): " + _counted(summary.left_out_classes))
    return lines


def merged_lines(summary: Summary) -> list[str]:
    """Rows and classes before and after merging."""
    if not summary.merged_by:
        return []
    if not summary.original_classes:
        return [f"labels merged by {summary.merged_by}: none of the data's"]
    groups = [
        f"{label} {sum(parts.values()):,} = " + " + ".join(f"{name} {rows:,}" for name, rows in parts.items())
        for label, parts in summary.merged.items()
    ]
    return [
        f"labels merged by {summary.merged_by}: {summary.original_classes} classes become {summary.classes}",
        *groups,
    ]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
