"""From the files that a user names to three clean splits."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lorasweep.training.data.columns import find_date, find_label, find_text, strings, texts_and_pairs
from lorasweep.training.data.dataset import (
    Dataset,
    Summary,
    Texts,
    describe,
    fingerprint,
    summary_lines,
    texts_of,
)
from lorasweep.training.data.date_split import day_spans, divide_by_date, undated
from lorasweep.training.data.dates import read_dates
from lorasweep.training.data.label_map import load_label_map
from lorasweep.training.data.splits import SPLITS, TEST, TRAIN, VALIDATION, divide, stratified_part
from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files.tables import Table, read_table
from lorasweep.training.settings import DataSettings

__all__ = [
    "DataSettings",
    "Dataset",
    "Summary",
    "Texts",
    "describe",
    "load_dataset",
    "summary_lines",
]

SAMPLE_SOURCE = "sample news (made up)"

SPLIT_VALUES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What a split column may hold, whatever its case."""


def load_dataset(settings: DataSettings, seed: int) -> Dataset:
    """Reads, cleans and splits; the same settings, files and seed give the same rows in the same order.

    Rows without a text or a label are dropped (of two text columns one may be empty: the other then is the
    text) and labels are merged; then `splits.divide` sees to equal texts, small classes and missing
    splits, or `date_split.divide_by_date` does.
    Every row read is in a split, in `dropped` or in `left_out_classes`.

    Raises `DataError` for files and columns that do not hold what is wanted, `SettingsError` for settings
    that contradict each other.
    """
    label_map = load_label_map(settings.merge_labels) if settings.merge_labels is not None else None
    tables = _tables(settings)
    main = next(iter(tables.values()))
    named = [settings.label, settings.split_column, settings.date]
    text = find_text(main, settings.text, taken=[name for name in named if name is not None])
    label = find_label(main, settings.label, taken=[*text, settings.split_column or ""])
    date = _date_column(main, settings, taken=[*text, label])
    others = {"--split-column": settings.split_column, "--date": date}
    if label in text or any(column in (*text, label) for column in others.values()):
        also = "".join(f", {flag} {column!r}" for flag, column in others.items() if column is not None)
        raise SettingsError(
            f"--text {shown(text)}, --label {label!r}{also} name a column twice; each has a column of its own"
        )
    rows = pd.concat(
        [_rows(table, text, label, settings.split_column, split) for split, table in tables.items()],
        ignore_index=True,
    )
    if date is not None:
        rows["date"] = read_dates(strings(main, date, "--date"), f"{main.name}, column {date!r}")
    given = [split for split in (VALIDATION, TEST) if (rows["split"] == split).any()]
    dropped = {"not a JSON object": sum(table.unparsable for table in tables.values())}
    rows_read = len(rows) + dropped["not a JSON object"]
    for column in ("text", "label"):
        dropped[f"no {column}"] = int((rows[column] == "").sum())
        rows = rows[rows[column] != ""]
    rows["original"] = rows["label"]
    if label_map is not None:
        rows["label"] = rows["label"].map(label_map.apply(set(rows["label"])))

    if date is not None:
        dropped["no readable date"] = undated(rows["date"], main, date)
        division = divide_by_date(rows[rows["date"].notna()], f"{main.name}, column {date!r}")
    else:
        division = divide(rows, given, seed, settings.keep_small_classes)
    dropped |= division.dropped
    rows = division.rows
    for split, size, flag in (
        (TRAIN, settings.max_train_rows, "--max-train-rows"),
        (VALIDATION, settings.max_validation_rows, "--max-validation-rows"),
    ):
        if size is not None:
            labels = rows.loc[rows["split"] == split, "label"]
            surplus = labels.index[~stratified_part(labels, size, seed, flag)]
            dropped[f"beyond {flag}"] = len(surplus)
            rows = rows.drop(index=surplus)

    label_names = tuple(sorted(rows["label"].unique().tolist()))
    originals = tuple(sorted(rows["original"].unique().tolist()))
    # Where each label only has another name now, there is nothing to compare with.
    originals = originals if len(originals) > len(label_names) else ()
    splits = {
        split: texts_of(rows[rows["split"] == split], label_names, len(text) == 2, originals)
        for split in SPLITS
    }
    return Dataset(
        **splits,
        label_names=label_names,
        text_columns=text,
        label_column=label,
        source=_source(settings),
        fingerprint=fingerprint(splits, label_names),
        rows_read=rows_read,
        dropped={reason: count for reason, count in dropped.items() if count},
        left_out_classes=division.left_out,
        dates=day_spans(rows) if date is not None else {},
        merged_by=label_map.name if label_map is not None else "",
        original_names=originals,
    )


def _tables(settings: DataSettings) -> dict[str, Table]:
    """The files by the split that they hold; a single file that is still to be split counts as training."""
    others = {VALIDATION: settings.validation_path, TEST: settings.test_path}
    named = [path for path in others.values() if path is not None]
    given = [*named, *([settings.split_column] if settings.split_column is not None else [])]
    if settings.split_by == "date" and given:
        raise SettingsError(
            f"--split-by date makes the splits itself, and {shown(given)} brings splits; leave one of them out"
        )
    if settings.split_by != "date" and settings.date is not None:
        raise SettingsError(
            f"--date {settings.date} is for a split by date; add --split-by date, or leave it out"
        )
    if settings.path is None:
        if named:
            raise SettingsError(f"{shown(named)} is given without training rows; name their file with --data")
        from lorasweep.training.sample_news.sample import sample_news

        return {TRAIN: Table(sample_news(), SAMPLE_SOURCE)}
    if named and settings.split_column is not None:
        raise SettingsError(
            f"the splits come from a column ({settings.split_column!r}) or from files ({shown(named)}), "
            "not from both; leave one of them out"
        )
    paths = {TRAIN: settings.path} | {split: path for split, path in others.items() if path is not None}
    return {split: read_table(path, settings.columns) for split, path in paths.items()}


def _date_column(table: Table, settings: DataSettings, taken: list[str]) -> str | None:
    """The column that the rows are split by; None for a split that knows no dates."""
    return find_date(table, settings.date, taken) if settings.split_by == "date" else None


def _source(settings: DataSettings) -> str:
    paths = (settings.path, settings.validation_path, settings.test_path)
    return " + ".join(Path(path).name for path in paths if path is not None) or SAMPLE_SOURCE


def _rows(
    table: Table, text: tuple[str, ...], label: str, split_column: str | None, split: str
) -> pd.DataFrame:
    """A file's rows as `text`, `pair`, `label` and `split`."""
    texts, pairs = _texts(table, text)
    labels = strings(table, label, "--label")
    if not any(labels):
        raise DataError(f"{table.name}: column {label!r} is empty in every row; name another with --label")
    splits = [split] * len(texts) if split_column is None else _split_values(table, split_column)
    return pd.DataFrame({"text": texts, "pair": pairs, "label": labels, "split": splits}, dtype=object)


def _texts(table: Table, columns: tuple[str, ...]) -> tuple[list[str], list[str]]:
    texts, pairs = texts_and_pairs(table, columns)
    if not any(texts):
        raise DataError(
            f"{table.name}: {shown(columns)} is empty in every row; name other columns with --text"
        )
    return texts, pairs or [""] * len(texts)


def _split_values(table: Table, column: str) -> list[str]:
    values = strings(table, column, "--split-column")
    unknown = sorted({value for value in values if value.casefold() not in SPLIT_VALUES})
    if unknown:
        raise DataError(
            f"{table.name}, row {values.index(unknown[0]) + 1}: split column {column!r} holds "
            f"{shown(unknown, 8)}; it may hold {', '.join(SPLIT_VALUES)}"
        )
    return [SPLIT_VALUES[value.casefold()] for value in values]
