"""Files or frames in, three clean splits out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lorasweep.training.data.columns import find_date, find_label, find_text, strings, texts_and_pairs
from lorasweep.training.data.corrections import correct_labels
from lorasweep.training.data.dataset import Dataset, fingerprint, texts_of
from lorasweep.training.data.date_split import day_spans, divide_by_date, undated
from lorasweep.training.data.dates import read_dates
from lorasweep.training.data.label_map import load_label_map
from lorasweep.training.data.labels import sorted_labels, whole_numbers
from lorasweep.training.data.sources import SAMPLE_SOURCE as SAMPLE_SOURCE
from lorasweep.training.data.sources import find_sources, read_sources, source_name
from lorasweep.training.data.splits import (
    ENOUGH_VALIDATION_ROWS,
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    divide,
    stratified_part,
)
from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files.split_names import SPLIT_VALUES, split_of
from lorasweep.training.files.tables import Table
from lorasweep.training.settings import DataSettings


def load_dataset(
    data_settings: DataSettings, seed: int, frames: Mapping[str, pd.DataFrame] | None = None
) -> Dataset:
    """Read, clean and split rows; the same settings, rows and seed give the same splits in the same order.

    Rows without a text, a label or a group are dropped (of two text columns one may be empty: the other is then the
    text). Where all labels are whole numbers, "5.0" is "5". Labels are merged. Duplicate texts, small classes
    and missing splits are left to `splits.divide`, or to `date_split.divide_by_date`. Every row read ends up in
    a split, in `dropped` or in `left_out_classes`.

    Args:
        frames: rows in memory by split ("train", "validation", "test"), read in place of that split's path.

    Raises:
        DataError: a file, a frame or a column does not hold what is needed.
        SettingsError: settings contradict each other.
    """
    label_map = load_label_map(data_settings.merge_labels) if data_settings.merge_labels is not None else None
    sources = find_sources(data_settings, frames or {})
    tables = read_sources(data_settings, frames or {}, sources)
    main = next(iter(tables.values()))
    text, label, date = _columns(main, data_settings)
    notes = [note for table in tables.values() for note in table.notes]
    for split in [split for split in tables if split not in sources and split != TRAIN]:
        # Test splits of competitions hide their labels.
        if label not in tables[split].frame or not any(strings(tables[split], label, "--label")):
            notes.append(f"{tables[split].name} has no labels and is left out")
            del tables[split]
    rows = pd.concat(
        [_rows(table, text, label, data_settings, split) for split, table in tables.items()],
        ignore_index=True,
    )
    if date is not None:
        rows["date"] = read_dates(strings(main, date, "--date"), f"{main.name}, column {date!r}")
    given = [split for split in (VALIDATION, TEST) if (rows["split"] == split).any()]
    dropped = {"not a JSON object": sum(table.unparsable for table in tables.values())}
    rows_read = len(rows) + dropped["not a JSON object"]
    group = data_settings.group
    for column in ("text", "label", *(("group",) if group is not None else ())):
        dropped[f"no {column}"] = int((rows[column] == "").sum())
        rows = rows[rows[column] != ""]
    # Over all splits, of which each may come from a file that writes numbers in its own way.
    rows["label"] = rows["label"].map(whole_numbers(set(rows["label"])))
    rows["original"] = rows["label"]
    if label_map is not None:
        rows["label"] = rows["label"].map(label_map.apply(set(rows["label"])))

    if date is not None:
        dropped["no readable date"] = undated(rows["date"], main, date)
        division = divide_by_date(rows[rows["date"].notna()], f"{main.name}, column {date!r}")
    else:
        division = divide(rows, given, seed, data_settings.keep_small_classes, group)
    dropped |= division.dropped
    rows = division.rows
    for split, size, flag in (
        (TRAIN, data_settings.max_train_rows, "--max-train-rows"),
        (VALIDATION, _validation_limit(data_settings, rows), "--max-validation-rows"),
    ):
        if size is not None:
            labels = rows.loc[rows["split"] == split, "label"]
            surplus = labels.index[~stratified_part(labels, size, seed, flag)]
            dropped[f"beyond {flag}"] = len(surplus)
            rows = rows.drop(index=surplus)

    # The splits are those without corrections: scores before and after are of the same test rows.
    for corrections in data_settings.corrections:
        rows, told = correct_labels(rows, corrections)
        notes += told
    label_names = tuple(sorted_labels(rows["label"].unique().tolist()))
    originals = tuple(sorted_labels(rows["original"].unique().tolist()))
    # Where labels were only renamed there is nothing to compare with.
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
        source=" + ".join(map(source_name, sources.values())) or SAMPLE_SOURCE,
        fingerprint=fingerprint(splits, label_names),
        rows_read=rows_read,
        dropped={reason: count for reason, count in dropped.items() if count},
        left_out_classes={name: division.left_out[name] for name in sorted_labels(division.left_out)},
        dates=day_spans(rows) if date is not None else {},
        merged_by=label_map.name if label_map is not None else "",
        original_names=originals,
        notes=tuple(dict.fromkeys(notes)),
        group_column=group or "",
        groups=_groups(rows) if group is not None else {},
    )


def _groups(rows: pd.DataFrame) -> dict[str, int]:
    """The number of groups in each split."""
    numbers = rows.groupby("split")["group"].nunique()
    return {split: int(numbers[split]) for split in SPLITS}


def _validation_limit(data_settings: DataSettings, rows: pd.DataFrame) -> int | None:
    """The most validation rows: those asked for, or a quarter of a limit of the training rows.

    A search on a part of the training rows would otherwise spend most of its time on evaluations.
    """
    if data_settings.max_validation_rows is not None or data_settings.max_train_rows is None:
        return data_settings.max_validation_rows
    classes = rows.loc[rows["split"] == VALIDATION, "label"].nunique()
    return max(data_settings.max_train_rows // 4, ENOUGH_VALIDATION_ROWS, classes)


def _columns(table: Table, data_settings: DataSettings) -> tuple[tuple[str, ...], str, str | None]:
    """The text columns, the label column, and the date column of a split by date."""
    split_column, group = data_settings.split_column, data_settings.group
    named = [data_settings.label, split_column, data_settings.date, group]
    text = find_text(table, data_settings.text, taken=[name for name in named if name is not None])
    label = find_label(table, data_settings.label, taken=[*text, split_column or "", group or ""])
    date = None
    if data_settings.split_by == "date":
        date = find_date(table, data_settings.date, taken=[*text, label])
    others = {"--split-column": split_column, "--date": date, "--group": group}
    used = [*text, label, *filter(None, others.values())]
    if len(set(used)) < len(used):
        also = "".join(f", {flag} {column!r}" for flag, column in others.items() if column is not None)
        raise SettingsError(
            f"--text {shown(text)}, --label {label!r}{also} name a column twice; each has a column of its own"
        )
    return text, label, date


def _rows(
    table: Table, text: tuple[str, ...], label: str, data_settings: DataSettings, split: str
) -> pd.DataFrame:
    """A file's rows as `text`, `pair`, `label`, `split` and, where a column of groups is named, `group`."""
    texts, pairs = _texts(table, text)
    labels = strings(table, label, "--label")
    if not any(labels):
        raise DataError(f"{table.name}: column {label!r} is empty in every row; name another with --label")
    split_column, group = data_settings.split_column, data_settings.group
    splits = [split] * len(texts) if split_column is None else _split_values(table, split_column)
    columns = {"text": texts, "pair": pairs, "label": labels, "split": splits}
    if group is not None:
        columns["group"] = strings(table, group, "--group")
        if not any(columns["group"]):
            raise DataError(
                f"{table.name}: column {group!r} is empty in every row; name another with --group"
            )
    return pd.DataFrame(columns, dtype=object)


def _texts(table: Table, columns: tuple[str, ...]) -> tuple[list[str], list[str]]:
    texts, pairs = texts_and_pairs(table, columns)
    if not any(texts):
        raise DataError(
            f"{table.name}: {shown(columns)} is empty in every row; name other columns with --text"
        )
    return texts, pairs or [""] * len(texts)


def _split_values(table: Table, column: str) -> list[str]:
    values = strings(table, column, "--split-column")
    unknown = sorted({value for value in values if not split_of(value)})
    if unknown:
        raise DataError(
            f"{table.name}, row {values.index(unknown[0]) + 1}: split column {column!r} holds "
            f"{shown(unknown, 8)}; it may hold {', '.join(SPLIT_VALUES)}"
        )
    return list(map(split_of, values))
