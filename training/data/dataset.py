"""The prepared rows of a sweep: three splits of texts and labels, kept on disk and summarised."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lorasweep.training.data.splits import SPLITS
from lorasweep.training.errors import DataError

ROWS_FILE, FACTS_FILE = "data.parquet", "data.json"


@dataclass(frozen=True)
class Texts:
    """One split: `text`, `pair` (None when one column is read) and `labels`, all of the same length."""

    text: list[str]
    pair: list[str] | None
    labels: np.ndarray
    """int64, (rows,): index into the data set's `label_names`."""
    original: np.ndarray | None = None
    """int64, (rows,): index into the data set's `original_names`, where labels were merged."""

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class Dataset:
    """Everything a sweep needs to know of its data; the splits share no text."""

    train: Texts
    validation: Texts
    test: Texts
    label_names: tuple[str, ...]
    """Sorted as strings."""
    text_columns: tuple[str, ...]
    label_column: str
    source: str
    """Name of the file (several joined by " + "), or of the embedded sample."""
    fingerprint: str
    """SHA-256, hexadecimal, of the texts, label names and splits in order."""
    rows_read: int
    dropped: dict[str, int]
    """Reason → rows, in the order in which they were dropped."""
    left_out_classes: dict[str, int]
    """Class too small to stand in every split, or of a split by date without a training row → its rows."""
    dates: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Split → first and last day (ISO), where the rows were split by date."""
    merged_by: str = ""
    """Name of the map that labels were merged by."""
    original_names: tuple[str, ...] = ()
    """The labels as they were before they were merged, sorted; empty where no two became one."""

    def splits(self) -> dict[str, Texts]:
        """ "train", "validation" and "test", in this order."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def merge_index(self) -> np.ndarray:
        """The merged class of each original one: int64, (original names,), index into `label_names`."""
        index = np.zeros(len(self.original_names), dtype=np.int64)
        for texts in self.splits().values():
            if texts.original is not None:
                index[texts.original] = texts.labels
        return index

    def save(self, folder: str | Path) -> None:
        """Writes data.parquet (text, pair, label, split, original) and data.json (the rest) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        frames = [
            pd.DataFrame(
                {
                    "text": texts.text,
                    "pair": texts.pair if texts.pair is not None else pd.NA,
                    "label": [self.label_names[label] for label in texts.labels.tolist()],
                    "split": name,
                }
                | self._original_column(texts),
                dtype="string",
            )
            for name, texts in self.splits().items()
        ]
        pd.concat(frames, ignore_index=True).to_parquet(folder / ROWS_FILE, engine="pyarrow", index=False)
        facts = {
            "source": self.source,
            "text_columns": self.text_columns,
            "label_column": self.label_column,
            "label_names": self.label_names,
            "rows_read": self.rows_read,
            "dropped": self.dropped,
            "left_out_classes": self.left_out_classes,
            "fingerprint": self.fingerprint,
            "dates": self.dates,
            "merged_by": self.merged_by,
            "original_names": self.original_names,
        }
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def _original_column(self, texts: Texts) -> dict[str, list[str]]:
        if texts.original is None:
            return {}
        return {"original": [self.original_names[label] for label in texts.original.tolist()]}

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Reads what `save` wrote. Raises `DataError` when it is missing, broken or not what was saved."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS_FILE).read_text("utf-8"))
            rows = pd.read_parquet(folder / ROWS_FILE, engine="pyarrow")
            names = tuple(facts["label_names"])
            # What a later version added, an older one's folder lacks.
            originals = tuple(facts.get("original_names", ()))
            paired = len(facts["text_columns"]) == 2
            splits = {
                split: texts_of(rows[rows["split"] == split], names, paired, originals) for split in SPLITS
            }
            if fingerprint(splits, names) != facts["fingerprint"]:
                raise ValueError("the rows are not the ones that were saved")
            return cls(
                **splits,
                label_names=names,
                text_columns=tuple(facts["text_columns"]),
                label_column=facts["label_column"],
                source=facts["source"],
                fingerprint=facts["fingerprint"],
                rows_read=facts["rows_read"],
                dropped=facts["dropped"],
                left_out_classes=facts["left_out_classes"],
                dates={split: (first, last) for split, (first, last) in facts.get("dates", {}).items()},
                merged_by=facts.get("merged_by", ""),
                original_names=originals,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} does not hold a sweep's prepared data ({error}); start a new sweep"
            ) from None


def texts_of(
    rows: pd.DataFrame, label_names: tuple[str, ...], paired: bool, original_names: tuple[str, ...] = ()
) -> Texts:
    """One split from rows with the columns `text`, `pair`, `label` and, where labels were merged, `original`."""
    return Texts(
        rows["text"].tolist(),
        rows["pair"].tolist() if paired else None,
        _indices(rows["label"], label_names),
        _indices(rows["original"], original_names) if original_names else None,
    )


def _indices(labels: pd.Series[str], names: tuple[str, ...]) -> np.ndarray:
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[label] for label in labels.tolist()], dtype=np.int64)


def fingerprint(splits: dict[str, Texts], label_names: tuple[str, ...]) -> str:
    """SHA-256 in hexadecimal over every row in its order, and its label as it is trained on."""
    digest = hashlib.sha256()
    for name, texts in splits.items():
        # JSON, because joined strings could be cut at other places and still read the same.
        row_data = [name, texts.text, texts.pair, texts.labels.tolist(), label_names]
        digest.update(json.dumps(row_data, ensure_ascii=False).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Summary:
    """What a user should see of the data before a sweep starts."""

    source: str
    rows_read: int
    dropped: dict[str, int]
    left_out_classes: dict[str, int]
    rows: dict[str, int]
    """Split → rows."""
    classes: int
    largest: tuple[str, int]
    """Class with the most rows in all splits together, and their number."""
    smallest: tuple[str, int]
    majority_accuracy: float
    """Share of the test rows that are right when the most frequent training class is always the answer."""
    dates: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Split → first and last day, where the rows were split by date."""
    merged_by: str = ""
    original_classes: int = 0
    """Classes before labels were merged; 0 where no two became one."""
    merged: dict[str, dict[str, int]] = field(default_factory=dict)
    """Merged class → label that went into it → rows in all splits together."""


def describe(dataset: Dataset) -> Summary:
    """Counts rows and classes."""
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
    if summary.dropped:
        lines.append("dropped: " + _counted(summary.dropped))
    if summary.left_out_classes:
        why = "no row as old as training" if summary.dates else "too few rows to stand in every split"
        lines.append(f"classes left out ({why}): " + _counted(summary.left_out_classes))
    lines.append("rows: " + _counted(summary.rows))
    if summary.dates:
        spans = [f"{split} {first} to {last}" for split, (first, last) in summary.dates.items()]
        lines.append("split by date: " + ", ".join(spans))
    lines += _merged_lines(summary)
    (largest, most), (smallest, least) = summary.largest, summary.smallest
    lines.append(f"{summary.classes} classes, from {smallest} ({least:,} rows) to {largest} ({most:,} rows)")
    lines.append(
        f"always answering with the most frequent class: {summary.majority_accuracy:.1%} of the test rows"
    )
    return lines


def _merged_lines(summary: Summary) -> list[str]:
    """What became of the labels: rows and classes before and after."""
    if not summary.merged_by:
        return []
    if not summary.original_classes:
        return [f"labels by {summary.merged_by}: no two of the data's are merged"]
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
