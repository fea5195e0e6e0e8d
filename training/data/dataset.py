"""The prepared rows of a sweep: three splits of texts and labels, and their form on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lorasweep.training.data.label_sets import label_matrix, labels_of, set_text
from lorasweep.training.data.labels import several
from lorasweep.training.data.splits import SPLITS
from lorasweep.training.errors import DataError

ROWS_FILE, FACTS_FILE = "data.parquet", "data.json"


@dataclass(frozen=True)
class Texts:
    """One split: `text`, `pair` (None when one column is read) and `labels`, all of the same length."""

    text: list[str]
    pair: list[str] | None
    labels: np.ndarray
    """int64, (rows,): index into the data set's `label_names`. Of several labels a text: uint8, (rows, labels), 1 where
    a text has the label."""
    original: np.ndarray | None = None
    """int64, (rows,): index into the data set's `original_names`, where labels were merged."""
    group: list[str] | None = None
    """Of each row, where no two splits share one; None in data sets that older versions have saved."""

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class Dataset:
    """All that a sweep needs of its data; the splits share no text."""

    train: Texts
    validation: Texts
    test: Texts
    label_names: tuple[str, ...]
    """By number where all are integers, else sorted as strings; a folder keeps the order that it was saved with."""
    text_columns: tuple[str, ...]
    label_column: str
    source: str
    """Name of the file (several joined by " + "), or of the embedded sample."""
    fingerprint: str
    """SHA-256, hexadecimal, of the texts, label names and splits in order."""
    rows_read: int
    dropped: dict[str, int]
    """Reason → rows, in the order of dropping."""
    left_out_classes: dict[str, int]
    """Class too small for every split, or (of a split by date) without a training row → its rows."""
    dates: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Split → first and last day (ISO), of a split by date."""
    merged_by: str = ""
    """Name of the map that merged labels; empty without one."""
    original_names: tuple[str, ...] = ()
    """The labels before merging, in such an order; empty where no two became one."""
    notes: tuple[str, ...] = ()
    """What was found out about the files and may be wrong, a sentence each."""

    group_column: str = ""
    """Column of which no two splits share a value; empty without one."""
    groups: dict[str, int] = field(default_factory=dict)
    """Split → its groups; empty without a column of groups."""

    multi_label: bool = False
    """Whether a text has several labels, or none; then classes are labels, and `Texts.labels` a matrix."""
    label_separator: str = ""
    """What separated the labels in a field; empty for other forms."""

    def splits(self) -> dict[str, Texts]:
        """ "train", "validation" and "test", in this order."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def merge_index(self) -> np.ndarray:
        """The merged class of each original one: int64, (original names,), indices into `label_names`."""
        index = np.zeros(len(self.original_names), dtype=np.int64)
        for texts in self.splits().values():
            if texts.original is not None:
                index[texts.original] = texts.labels
        return index

    def save(self, folder: str | Path) -> None:
        """Write data.parquet (text, pair, label, split, original, group) and data.json (the rest) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = pd.concat(
            [self._rows(name, texts) for name, texts in self.splits().items()], ignore_index=True
        )
        rows.to_parquet(folder / ROWS_FILE, engine="pyarrow", index=False)
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in SPLITS}
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def _rows(self, split: str, texts: Texts) -> pd.DataFrame:
        columns: dict[str, object] = {
            "text": texts.text,
            "pair": texts.pair if texts.pair is not None else pd.NA,
            "label": list(map(set_text, labels_of(texts.labels, self.label_names)))
            if several(texts.labels)
            else [self.label_names[label] for label in texts.labels.tolist()],
            "split": split,
        }
        if texts.original is not None:
            columns["original"] = [self.original_names[label] for label in texts.original.tolist()]
        if texts.group is not None:
            columns["group"] = texts.group
        return pd.DataFrame(columns, dtype="string")

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read what `save` wrote. Raises `DataError` when it is missing, broken or not what was saved."""
        folder = Path(folder)
        try:
            stored = json.loads((folder / FACTS_FILE).read_text("utf-8"))
            rows = pd.read_parquet(folder / ROWS_FILE, engine="pyarrow")
            # An older version's folder lacks some fields, a later one's has others.
            facts: dict[str, Any] = {f.name: stored[f.name] for f in fields(cls) if f.name in stored}
            for name in ("label_names", "text_columns", "original_names", "notes"):
                facts[name] = tuple(facts.get(name, ()))
            facts["dates"] = {split: tuple(days) for split, days in facts.get("dates", {}).items()}
            names, originals = facts["label_names"], facts["original_names"]
            paired = len(facts["text_columns"]) == 2
            splits = {
                split: texts_of(
                    rows[rows["split"] == split],
                    names,
                    paired,
                    originals,
                    sets=facts.get("multi_label", False),
                )
                for split in SPLITS
            }
            if fingerprint(splits, names) != facts["fingerprint"]:
                raise ValueError("the rows are not the ones that were saved")
            return cls(**facts | splits)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} does not hold a sweep's prepared data ({error}); start a new sweep"
            ) from None


def texts_of(
    rows: pd.DataFrame,
    label_names: tuple[str, ...],
    paired: bool,
    original_names: tuple[str, ...] = (),
    sets: bool = False,
) -> Texts:
    """One split from rows with the columns `text`, `pair`, `label` and, where labels were merged, `original`.

    A column `group` may be there, too.

    Args:
        sets: that a label is a set, as `label_sets.set_text` writes it.
    """
    return Texts(
        rows["text"].tolist(),
        rows["pair"].tolist() if paired else None,
        label_matrix(rows["label"], label_names) if sets else _indices(rows["label"], label_names),
        _indices(rows["original"], original_names) if original_names else None,
        rows["group"].tolist() if "group" in rows else None,
    )


def _indices(labels: pd.Series[str], names: tuple[str, ...]) -> np.ndarray:
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[label] for label in labels.tolist()], dtype=np.int64)


def fingerprint(splits: dict[str, Texts], label_names: tuple[str, ...]) -> str:
    """SHA-256, in hexadecimal, of every row in order with the label that it is trained on."""
    digest = hashlib.sha256()
    for name, texts in splits.items():
        # JSON, because joined strings could be cut at other places and still read the same.
        row_data = [name, texts.text, texts.pair, texts.labels.tolist(), label_names]
        digest.update(json.dumps(row_data, ensure_ascii=False).encode())
    return digest.hexdigest()
