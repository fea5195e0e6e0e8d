"""Files or frames in, three clean splits out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lorasweep.training.data.columns import find_date, find_labels, find_text, strings, texts_and_pairs
from lorasweep.training.data.corrections import correct_labels
from lorasweep.training.data.dataset import Dataset, fingerprint, texts_of
from lorasweep.training.data.date_split import day_spans, divide_by_date, undated
from lorasweep.training.data.dates import read_dates
from lorasweep.training.data.label_map import load_label_map
from lorasweep.training.data.label_sets import (
    SetForm,
    find_form,
    has_labels,
    label_matrix,
    read_sets,
    renamed,
    set_of,
)
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
from lorasweep.training.data.stratify import label_names as names_of
from lorasweep.training.data.stratify import part_of_sets
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
    form = find_form(main, label, data_settings.label_separator)
    if form is not None:
        _check_sets(form, data_settings, tables)
    notes = [note for table in tables.values() for note in table.notes]
    for split in [split for split in tables if split not in sources and split != TRAIN]:
        # Test splits of competitions hide their labels.
        if not _labelled(tables[split], label, form):
            notes.append(f"{tables[split].name} has no labels and is left out")
            del tables[split]
    rows = pd.concat(
        [_rows(table, text, label, form, data_settings, split) for split, table in tables.items()],
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
    if form is not None:
        rows["label"] = renamed(rows["label"], whole_numbers(names_of(rows["label"])))
        notes += _set_notes(rows, form)
    else:
        rows["label"] = rows["label"].map(whole_numbers(set(rows["label"])))
    rows["original"] = rows["label"]
    if label_map is not None:
        rows["label"] = rows["label"].map(label_map.apply(set(rows["label"])))

    if date is not None:
        dropped["no readable date"] = undated(rows["date"], main, date)
        dated = rows[rows["date"].notna()]
        division = divide_by_date(dated, f"{main.name}, column {date!r}", form is not None)
    else:
        division = divide(rows, given, seed, data_settings.keep_small_classes, group, form is not None)
    dropped |= division.dropped
    rows = division.rows
    for split, size, flag in (
        (TRAIN, data_settings.max_train_rows, "--max-train-rows"),
        (VALIDATION, _validation_limit(data_settings, rows, form is not None), "--max-validation-rows"),
    ):
        if size is not None:
            labels = rows.loc[rows["split"] == split, "label"]
            chosen = (
                stratified_part(labels, size, seed, flag)
                if form is None
                else part_of_sets(label_matrix(labels, names_of(labels)), size, seed, flag)
            )
            surplus = labels.index[~chosen]
            dropped[f"beyond {flag}"] = len(surplus)
            rows = rows.drop(index=surplus)

    # The splits are those without corrections: scores before and after are of the same test rows.
    for corrections in data_settings.corrections:
        rows, told = correct_labels(rows, corrections)
        notes += told
    if form is None:
        label_names = tuple(sorted_labels(rows["label"].unique().tolist()))
        originals = tuple(sorted_labels(rows["original"].unique().tolist()))
    else:
        label_names, originals = tuple(sorted_labels(names_of(rows["label"]))), ()
    # Where labels were only renamed there is nothing to compare with.
    originals = originals if len(originals) > len(label_names) else ()
    splits = {
        split: texts_of(
            rows[rows["split"] == split], label_names, len(text) == 2, originals, form is not None
        )
        for split in SPLITS
    }
    return Dataset(
        **splits,
        label_names=label_names,
        text_columns=text,
        label_column=_column_text(label),
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
        multi_label=form is not None,
        label_separator=(form.separator or "") if form is not None else "",
    )


def _check_sets(form: SetForm, data_settings: DataSettings, tables: Mapping[str, Table]) -> None:
    """Refuse what is not for several labels a text, and a separator that separates nothing."""
    if data_settings.merge_labels is not None:
        raise SettingsError(
            f"--merge-labels {data_settings.merge_labels} is for one label a text, and column "
            f"{_column_text(form.columns)!r} holds several; leave it out, or rename the labels in the file"
        )
    if data_settings.corrections:
        raise DataError(
            f"--corrections {', '.join(data_settings.corrections)}: is for one label a text, and column "
            f"{_column_text(form.columns)!r} holds several; correct them in the file"
        )
    if form.separator is not None and not any(
        form.separator.strip() in value
        for table in tables.values()
        if form.columns[0] in table.frame
        for value in strings(table, form.columns[0], "--label")
    ):
        raise SettingsError(
            f"--label-separator {form.separator!r}: no field of column {form.columns[0]!r} holds it; name the "
            "character between the labels, or leave it out"
        )


def _set_notes(rows: pd.DataFrame, form: SetForm) -> list[str]:
    sizes = rows["label"].map({text: len(set_of(text)) for text in rows["label"].unique()})
    if sizes.max() > 1:
        return []
    return [
        f"no text has more than one label in {_column_text(form.columns)}; if each can only have one, write it as a "
        "plain value: then the classes exclude one another"
    ]


def _labelled(table: Table, label: tuple[str, ...], form: SetForm | None) -> bool:
    """Whether a table has the label columns, and a label in any row."""
    if form is not None:
        return has_labels(table, form)
    return label[0] in table.frame and any(strings(table, label[0], "--label"))


def _column_text(columns: tuple[str, ...]) -> str:
    """The label columns' names, a few of many."""
    more = f" and {len(columns) - 4} more" if len(columns) > 5 else ""
    return ", ".join(columns if not more else columns[:4]) + more


def _groups(rows: pd.DataFrame) -> dict[str, int]:
    """The number of groups in each split."""
    numbers = rows.groupby("split")["group"].nunique()
    return {split: int(numbers[split]) for split in SPLITS}


def _validation_limit(data_settings: DataSettings, rows: pd.DataFrame, sets: bool) -> int | None:
    """The most validation rows: those asked for, or a quarter of a limit of the training rows.

    A search on a part of the training rows would otherwise spend most of its time on evaluations.
    """
    if data_settings.max_validation_rows is not None or data_settings.max_train_rows is None:
        return data_settings.max_validation_rows
    labels = rows.loc[rows["split"] == VALIDATION, "label"]
    classes = len(names_of(labels)) if sets else labels.nunique()
    return max(data_settings.max_train_rows // 4, ENOUGH_VALIDATION_ROWS, classes)


def _columns(
    table: Table, data_settings: DataSettings
) -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
    """The text columns, the label columns, and the date column of a split by date."""
    split_column, group = data_settings.split_column, data_settings.group
    named = [*data_settings.label, split_column, data_settings.date, group]
    text = find_text(table, data_settings.text, taken=[name for name in named if name is not None])
    label = find_labels(table, data_settings.label, taken=[*text, split_column or "", group or ""])
    date = None
    if data_settings.split_by == "date":
        date = find_date(table, data_settings.date, taken=[*text, *label])
    others = {"--split-column": split_column, "--date": date, "--group": group}
    used = [*text, *label, *filter(None, others.values())]
    if len(set(used)) < len(used):
        also = "".join(f", {flag} {column!r}" for flag, column in others.items() if column is not None)
        raise SettingsError(
            f"--text {shown(text)}, --label {shown(label)}{also} name a column twice; each has a column of its own"
        )
    return text, label, date


def _rows(
    table: Table,
    text: tuple[str, ...],
    label: tuple[str, ...],
    form: SetForm | None,
    data_settings: DataSettings,
    split: str,
) -> pd.DataFrame:
    """A file's rows as `text`, `pair`, `label`, `split` and, where a column of groups is named, `group`."""
    texts, pairs = _texts(table, text)
    labels = strings(table, label[0], "--label") if form is None else read_sets(table, form)
    if not any(text not in ("", "[]") for text in labels):
        raise DataError(
            f"{table.name}: column {_column_text(label)!r} is empty in every row; name another with --label"
        )
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
