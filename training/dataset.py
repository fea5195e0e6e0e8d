"""The prepared rows of a sweep: three splits of texts and labels, kept on disk and summarised."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from training.errors import DataError
from training.splits import SPLITS

ROWS_FILE, FACTS_FILE = "data.parquet", "data.json"


@dataclass(frozen=True)
class Texts:
    """One split: `text`, `pair` (None when one column is read) and `labels`, all of the same length."""

    text: list[str]
    pair: list[str] | None
    labels: np.ndarray
    """int64, (rows,): index into the data set's `label_names`."""

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
    """Class too small to stand in every split → its rows."""

    def splits(self) -> dict[str, Texts]:
        """ "train", "validation" and "test", in this order."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def save(self, folder: str | Path) -> None:
        """Writes data.parquet (text, pair, label, split) and data.json (the rest) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        frames = [
            pd.DataFrame(
                {
                    "text": texts.text,
                    "pair": texts.pair if texts.pair is not None else pd.NA,
                    "label": [self.label_names[label] for label in texts.labels.tolist()],
                    "split": name,
                },
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
        }
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Reads what `save` wrote. Raises `DataError` when it is missing, broken or not what was saved."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS_FILE).read_text("utf-8"))
            rows = pd.read_parquet(folder / ROWS_FILE, engine="pyarrow")
            names = tuple(facts["label_names"])
            index = {name: number for number, name in enumerate(names)}
            splits = {
                split: texts_of(rows[rows["split"] == split], index, paired=len(facts["text_columns"]) == 2)
                for split in SPLITS
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
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} does not hold a sweep's prepared data ({error}); start a new sweep"
            ) from None


def texts_of(rows: pd.DataFrame, label_index: dict[str, int], paired: bool) -> Texts:
    """One split from rows with the columns `text`, `pair` and `label` (a key of `label_index`)."""
    labels = np.array([label_index[label] for label in rows["label"].tolist()], dtype=np.int64)
    return Texts(rows["text"].tolist(), rows["pair"].tolist() if paired else None, labels)


def fingerprint(splits: dict[str, Texts], label_names: tuple[str, ...]) -> str:
    """SHA-256 in hexadecimal over every row in its order."""
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
    )


def summary_lines(summary: Summary) -> list[str]:
    """The summary as a few lines of plain text."""
    lines = [f"{summary.source}: {summary.rows_read:,} rows read"]
    if summary.dropped:
        lines.append("dropped: " + _counted(summary.dropped))
    if summary.left_out_classes:
        lines.append(
            "classes left out (too few rows to stand in every split): " + _counted(summary.left_out_classes)
        )
    lines.append("rows: " + _counted(summary.rows))
    (largest, most), (smallest, least) = summary.largest, summary.smallest
    lines.append(f"{summary.classes} classes, from {smallest} ({least:,} rows) to {largest} ({most:,} rows)")
    lines.append(
        f"always answering with the most frequent class: {summary.majority_accuracy:.1%} of the test rows"
    )
    return lines


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
