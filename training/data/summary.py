"""What a user should see of the data before a sweep starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.labels import similar_labels, told_apart
from lorasweep.training.data.sources import SAMPLE_SOURCE
from lorasweep.training.data.splits import ENOUGH_VALIDATION_ROWS, VALIDATION
from lorasweep.training.errors import counted, shown
from lorasweep.training.settings import Long

MOST_UNKNOWN = 0.05
"""Share of tokens unknown to the tokenizer above which another model is advised."""
MOST_GROUPS = 5
"""Groups of similar labels that a note names."""


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
    similar: list[dict[str, int]] = field(default_factory=list)
    """Groups of labels that look alike → rows; classes that were left out are among them."""
    notes: tuple[str, ...] = ()
    """What was found out about the files and may be wrong, a sentence each."""
    group_column: str = ""
    groups: dict[str, int] = field(default_factory=dict)
    """Split → its groups; no two splits share one."""
    labels_per_text: float | None = None
    """Mean number of labels of a text; None where each has exactly one."""
    sets: int = 0
    """Different sets of labels, the empty one among them."""
    without_label: int = 0
    """Texts without any label, where they may have several."""
    constant: tuple[str, ...] = ()
    """Labels of all training texts, where they may have several: nothing tells when they do not apply."""


def describe(dataset: Dataset) -> Summary:
    """Count rows and classes."""
    splits = dataset.splits()
    counts = _counts(dataset)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Summary(
        source=dataset.source,
        rows_read=dataset.rows_read,
        dropped=dataset.dropped,
        left_out_classes=dataset.left_out_classes,
        rows={name: len(texts) for name, texts in splits.items()},
        classes=len(counts),
        largest=(dataset.label_names[ordered[0][0]], ordered[0][1]),
        smallest=(dataset.label_names[ordered[-1][0]], ordered[-1][1]),
        majority_accuracy=_majority_accuracy(dataset),
        dates=dataset.dates,
        merged_by=dataset.merged_by,
        original_classes=len(dataset.original_names),
        merged=_merged(dataset),
        similar=_similar(dataset, counts),
        notes=dataset.notes,
        group_column=dataset.group_column,
        groups=dataset.groups,
        **(_of_sets(dataset) if dataset.multi_label else {}),
    )


def _counts(dataset: Dataset) -> Counter[int]:
    """Class → its rows in all splits."""
    parts = [texts.labels for texts in dataset.splits().values()]
    if dataset.multi_label:
        return Counter(dict(enumerate(sum(part.sum(axis=0, dtype=np.int64) for part in parts).tolist())))
    return Counter(int(label) for part in parts for label in part)


def _majority_accuracy(dataset: Dataset) -> float:
    train, test = dataset.train.labels, dataset.test.labels
    if not dataset.multi_label:
        return float((test == np.bincount(train).argmax()).mean())
    sets, rows = np.unique(train, axis=0, return_counts=True)
    return float((test == sets[rows.argmax()]).all(axis=1).mean())


def _of_sets(dataset: Dataset) -> dict[str, Any]:
    labels = np.concatenate([texts.labels for texts in dataset.splits().values()])
    sizes = labels.sum(axis=1, dtype=np.int64)
    always = dataset.train.labels.min(axis=0).tolist()
    return {
        "labels_per_text": float(sizes.mean()),
        "sets": len(np.unique(labels, axis=0)),
        "without_label": int((sizes == 0).sum()),
        "constant": tuple(name for name, one in zip(dataset.label_names, always, strict=True) if one),
    }


def _similar(dataset: Dataset, counts: Counter[int]) -> list[dict[str, int]]:
    rows = {name: counts[number] for number, name in enumerate(dataset.label_names)}
    rows |= dataset.left_out_classes
    return [{name: rows[name] for name in group} for group in similar_labels(rows)]


def _merged(dataset: Dataset) -> dict[str, dict[str, int]]:
    if not dataset.original_names:
        return {}
    parts = [texts.original for texts in dataset.splits().values() if texts.original is not None]
    rows = np.bincount(np.concatenate(parts), minlength=len(dataset.original_names)).tolist()
    groups: dict[str, dict[str, int]] = {}
    for name, count, label in zip(dataset.original_names, rows, dataset.merge_index().tolist(), strict=True):
        groups.setdefault(dataset.label_names[label], {})[name] = count
    return {label: groups[label] for label in dataset.label_names if list(groups[label]) != [label]}


def summary_lines(summary: Summary) -> list[str]:
    """The summary as a few lines of plain text."""
    lines = [f"{summary.source}: {counted(summary.rows_read, 'row')} read"]
    lines += lost_lines(summary, limited=True)
    lines.append("rows: " + _counted(summary.rows))
    if summary.dates:
        spans = [f"{split} {first} to {last}" for split, (first, last) in summary.dates.items()]
        lines.append("split by date: " + ", ".join(spans))
    if summary.groups:
        lines.append(f"groups by {summary.group_column}, each in one split: " + _counted(summary.groups))
    lines += merged_lines(summary)
    (largest, most), (smallest, least) = summary.largest, summary.smallest
    several = summary.labels_per_text is not None
    lines.append(
        f"{summary.classes} {'labels' if several else 'classes'}, the largest {largest} ({counted(most, 'row')}), the "
        f"smallest {smallest} ({counted(least, 'row')})"
    )
    if several:
        lines.append(
            f"several labels a text: {summary.labels_per_text:.2f} on average, {summary.sets:,} different sets; "
            f"{counted(summary.without_label, 'text')} without a label"
        )
    lines.append(
        f"always predicting the most frequent {'set of labels' if several else 'class'}: "
        f"{summary.majority_accuracy:.1%} of the test rows correct"
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
        unit = "groups" if summary.groups else "rows"
        why = "no training row" if summary.dates else f"too few {unit} for every split"
        what = "classes" if summary.labels_per_text is None else "labels"
        lines.append(f"{what} left out ({why}): " + _label_counts(summary.left_out_classes))
    return lines


def merged_lines(summary: Summary) -> list[str]:
    """Rows and classes before and after merging."""
    if not summary.merged_by:
        return []
    if not summary.original_classes:
        return [f"labels merged by {summary.merged_by}: none of the data's"]
    groups = [
        f"{label} ({counted(sum(parts.values()), 'row')}) = " + _label_counts(parts, " + ")
        for label, parts in summary.merged.items()
    ]
    return [
        f"labels merged by {summary.merged_by}: {summary.original_classes} classes become {summary.classes}",
        *groups,
    ]


def data_notes(summary: Summary) -> list[str]:
    """What may be wrong with the rows, or too small to rely on, a sentence each."""
    notes = [*summary.notes]
    if summary.similar:
        groups = [
            " and ".join(
                f"{name} ({counted(rows, 'row')})"
                for name, rows in zip(told_apart(group), group.values(), strict=True)
            )
            for group in summary.similar[:MOST_GROUPS]
        ]
        more = (
            f"; and {len(summary.similar) - MOST_GROUPS} more such groups"
            if len(groups) < len(summary.similar)
            else ""
        )
        several = summary.labels_per_text is not None
        notes.append(
            f"labels that look alike are classes of their own: {'; '.join(groups)}{more}. If they are one class, "
            + ("correct the file or merge them with --merge-labels" if not several else "correct the file")
        )
    if summary.constant:
        notes.append(f"every training text has {shown(summary.constant, 4)}: when not, cannot be learnt")
    rows = summary.rows[VALIDATION]
    if rows < ENOUGH_VALIDATION_ROWS and summary.source != SAMPLE_SOURCE:
        notes.append(
            f"the validation split has {counted(rows, 'row')}: one of them is {100 / rows:.1f} points of accuracy, "
            f"so close trials cannot be told apart; {ENOUGH_VALIDATION_ROWS} rows or more choose a winner better"
        )
    return notes


def token_line(tokens: Mapping[str, Any], max_length: int, long: Long = "cut") -> str:
    """Lengths of the rows, and what becomes of long ones; see `EncodedDataset.token_summary`."""
    unknown = f", {tokens['unknown']:.1%} of the tokens unknown" if tokens["unknown"] >= 0.0005 else ""
    return (
        f"tokens per row: median {tokens['median']}, 95 % up to {tokens['p95']}, longest {tokens['max']}; "
        f"{long_line(tokens, str(max_length), long)}{unknown}"
    )


def long_line(tokens: Mapping[str, Any], limit: str, long: Long) -> str:
    """How many rows are longer than the model reads at once, and what is done with them."""
    rows = counted(tokens["truncated"], "row")
    if long == "cut":
        return f"{rows} truncated at {limit}"
    if long == "head-tail":
        return f"{rows} longer than {limit}, read without the middle"
    return f"{rows} longer than {limit}, read in {counted(tokens['chunks'], 'chunk')}"


def token_notes(tokens: Mapping[str, Any]) -> list[str]:
    """What the tokenizer cannot read, a sentence each; `tokens` are those of `EncodedDataset.token_summary`."""
    notes = []
    if tokens["unknown"] > MOST_UNKNOWN:
        notes.append(
            f"{tokens['unknown']:.0%} of the tokens are unknown to this model's tokenizer, so it does not see that "
            "part of the texts; choose a --base-model made for their language"
        )
    if tokens["unreadable"]:
        notes.append(
            f"{counted(tokens['unreadable'], 'text')} without a token that the model knows: such texts all get the "
            "same prediction"
        )
    return notes


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _label_counts(counts: dict[str, int], between: str = ", ") -> str:
    # A label may be a number itself, or hold commas.
    return between.join(f"{name} ({counted(count, 'row')})" for name, count in counts.items())
