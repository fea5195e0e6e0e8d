"""A folder of Parquet or Arrow files: what `datasets` saves, what a hub's repository holds, or any other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorasweep.training.errors import DataError, first_line, shown
from lorasweep.training.files.content import ARROW, PARQUET
from lorasweep.training.files.split_names import SPLITS, by_split, split_of

# What `datasets` writes beside the files of one data set, and of several splits.
_STATE, _SPLITS = "state.json", "dataset_dict.json"


@dataclass(frozen=True)
class FolderFiles:
    """The files of each split, in the order of their rows.

    Attributes:
        files: split → its files; under the empty name all files of a folder without splits.
        left_out: what is not read, because its name is that of no split.
    """

    files: dict[str, list[Path]]
    left_out: tuple[str, ...] = ()


def folder_files(folder: Path) -> FolderFiles:
    """The tables in a folder, by the splits that folders or the first words of their names mean.

    Raises:
        DataError: there is none, two names mean one split, or there are several data sets.
    """
    try:
        if (folder / _SPLITS).is_file():
            names = list(map(str, json.loads((folder / _SPLITS).read_text("utf-8"))["splits"]))
            splits = by_split(names, str(folder))
            if not splits:
                raise DataError(
                    f"{folder} has the splits {shown(names)}, and none is {', '.join(SPLITS)}; rename one"
                )
            others = tuple(name for name in names if name not in splits.values())
            # A name only: it cannot lead out of the folder.
            return FolderFiles(
                {split: _saved(folder / Path(name).name) for split, name in splits.items()}, others
            )
        if (folder / _STATE).is_file():
            return FolderFiles({"": _saved(folder)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is not a data set that `datasets` has saved ({first_line(error)}); save it again"
        ) from None
    return _found(folder)


def _saved(folder: Path) -> list[Path]:
    state = json.loads((folder / _STATE).read_text("utf-8"))
    return [folder / Path(entry["filename"]).name for entry in state["_data_files"]]


def _found(folder: Path) -> FolderFiles:
    tables = sorted(_tables(folder))
    if not tables:
        raise DataError(f"{folder} is a folder without Parquet or Arrow files; name one file in it")
    named = [(path, _split(path.relative_to(folder))) for path in tables]
    found = {split: [path for path, own in named if own == split] for split in SPLITS}
    files = {split: paths for split, paths in found.items() if paths}
    if not files:
        return FolderFiles({"": tables})
    sets = sorted({_data_set(path.relative_to(folder)) for path, split in named if split})
    if len(sets) > 1:
        raise DataError(f"{folder} holds several data sets ({shown(sets)}); name the folder of one")
    return FolderFiles(files, tuple(str(path.relative_to(folder)) for path, split in named if not split))


def _tables(folder: Path) -> Iterator[Path]:
    for suffix in (PARQUET, ARROW):
        for path in folder.rglob(f"*{suffix}"):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path


def _split(path: Path) -> str:
    """The split that a folder of the path means, or the first word of the file's name."""
    words = [*path.parts[:-1][::-1], re.split(r"[-_.]", path.stem)[0]]
    return next(filter(None, map(split_of, words)), "")


def _data_set(path: Path) -> str:
    """The folders of a path that are not named like a split."""
    return "/".join(part for part in path.parts[:-1] if not split_of(part)) or "."
