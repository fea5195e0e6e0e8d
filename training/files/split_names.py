"""What people call the splits of their data: in a column, in the keys of a JSON file, in the names of files."""

from __future__ import annotations

from collections.abc import Iterable

from lorasweep.training.errors import DataError, shown

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")

SPLIT_VALUES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""Name of a split, in lower case → the split."""


def split_of(name: str) -> str:
    """The split that `name` means, whatever its case; empty if it means none."""
    return SPLIT_VALUES.get(name.strip().casefold(), "")


def by_split(names: Iterable[str], where: str) -> dict[str, str]:
    """Split → which of the names means it, in the order train, validation, test; other names are left out.

    Raises:
        DataError: two mean the same one.
    """
    found: dict[str, str] = {}
    for name in names:
        if not (split := split_of(name)):
            continue
        if split in found:
            raise DataError(
                f"{where}: {shown([found[split], name])} both mean the {split} split; leave one out"
            )
        found[split] = name
    return {split: found[split] for split in SPLITS if split in found}
