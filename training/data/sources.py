"""Which files or frames a sweep's rows come from, and the table of each split that they bring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lorasweep.training.data.splits import SPLITS, TEST, TRAIN, VALIDATION
from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files.download import address_name, as_address
from lorasweep.training.files.tables import Table, table_of
from lorasweep.training.files.whole_tables import WHOLE, kind_of, read_tables
from lorasweep.training.settings import DataSettings

SAMPLE_SOURCE = "sample news (made up)"
FRAME_NAMES = {
    TRAIN: "DataFrame",
    VALIDATION: "DataFrame of validation rows",
    TEST: "DataFrame of test rows",
}
"""What messages call rows that a program has in memory, where they would name a path. As a path in settings
"DataFrame" says that a sweep's rows were such."""


def find_sources(data_settings: DataSettings, frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """The path of each split that is given, or what a frame is called; empty for the sample news."""
    if unknown := sorted(set(frames) - set(SPLITS)):
        raise SettingsError(f"{shown(unknown)} names no split; name the DataFrames {', '.join(SPLITS)}")
    paths = (data_settings.path, data_settings.validation_path, data_settings.test_path)
    return {
        split: FRAME_NAMES[split] if path is None or split in frames else path
        for split, path in zip(SPLITS, paths, strict=True)
        if path is not None or split in frames
    }


def source_name(source: str) -> str:
    """What plans and cards call a path: its last part; of an address without the query, which may hold a key."""
    if kind_of(source) == "hub":
        return source
    return Path(address_name(source) if as_address(source) else source).name or source


def read_sources(
    data_settings: DataSettings, frames: Mapping[str, pd.DataFrame], sources: Mapping[str, str]
) -> dict[str, Table]:
    """The tables by the split that they hold; a single one that is still to be split counts as training.

    Args:
        sources: of `find_sources`.

    Raises:
        DataError: a file cannot be read, or rows that were in memory are gone.
        SettingsError: settings contradict each other, or what the files hold.
    """
    _check(data_settings, frames, sources)
    if TRAIN not in sources:
        from lorasweep.training.sample_news.sample import sample_news

        return {TRAIN: Table(sample_news(), SAMPLE_SOURCE)}
    tables: dict[str, Table] = {}
    for split, source in sources.items():
        if split in frames:
            tables[split] = table_of(frames[split], source)
            continue
        found = read_tables(
            source,
            data_settings.columns,
            delimiter=data_settings.delimiter,
            encoding=data_settings.encoding,
            sheet=data_settings.sheet,
        )
        if WHOLE in found:
            tables[split] = found[WHOLE]
        elif split not in found:
            raise DataError(f"{source} holds the splits {', '.join(found)}, and no {split} rows; add them")
        elif split == TRAIN:
            _check_brought(data_settings, sources, found)
            tables |= found
        else:
            tables[split] = found[split]
    return tables


def _check_brought(
    data_settings: DataSettings, sources: Mapping[str, str], found: Mapping[str, Table]
) -> None:
    """Refuse settings that make splits of a file that has them."""
    others = [f"--{split} {source}" for split, source in sources.items() if split != TRAIN]
    if data_settings.split_column is not None:
        others.append(f"--split-column {data_settings.split_column}")
    if data_settings.split_by == "date":
        others.append("--split-by date")
    if others:
        raise SettingsError(
            f"{sources[TRAIN]} has splits of its own ({', '.join(found)}), and {', '.join(others)} brings others; "
            "leave one of them out"
        )


def _check(
    data_settings: DataSettings, frames: Mapping[str, pd.DataFrame], sources: Mapping[str, str]
) -> None:
    """Refuse settings that contradict each other or have no use."""
    held_out = [source for split, source in sources.items() if split != TRAIN]
    split_column = data_settings.split_column
    given = [*held_out, *([split_column] if split_column is not None else [])]
    if data_settings.split_by == "date" and given:
        raise SettingsError(
            f"--split-by date makes the splits itself, and {shown(given)} brings splits; leave one of them out"
        )
    if data_settings.split_by == "date" and data_settings.group is not None:
        raise SettingsError(
            f"--split-by date splits at dates, which --group {data_settings.group} would cross; leave one of them out"
        )
    if data_settings.split_by != "date" and data_settings.date is not None:
        raise SettingsError(
            f"--date {data_settings.date} is for a split by date; add --split-by date, or leave it out"
        )
    if TRAIN not in sources:
        if held_out:
            raise SettingsError(
                f"{shown(held_out)} is given without training rows; name their file with --data"
            )
        return
    if held_out and split_column is not None:
        raise SettingsError(
            f"the splits come from a column ({split_column!r}) or from files ({shown(held_out)}), "
            "not from both; leave one of them out"
        )
    gone = [
        source for split, source in sources.items() if source == FRAME_NAMES[TRAIN] and split not in frames
    ]
    if gone:
        raise DataError(f"{gone[0]}: these rows were in memory; pass them again, or name a file with --data")
    if frames and data_settings.columns:
        raise SettingsError(
            "--columns is for CSV and TSV without a header line; a DataFrame names its columns"
        )
    if frames and data_settings.delimiter is not None:
        raise SettingsError("--delimiter is for CSV and TSV files; a DataFrame has none, leave it out")
    if frames and data_settings.encoding is not None:
        raise SettingsError("--encoding is for text files; a DataFrame has none, leave it out")
    if frames and data_settings.sheet is not None:
        raise SettingsError("--sheet is for workbooks; a DataFrame has none, leave it out")
