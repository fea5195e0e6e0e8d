"""Synonymous labels merged into one, by a shipped map or the user's own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lorasweep.training.errors import DataError, SettingsError, shown
from lorasweep.training.files.yaml_file import read_yaml

SHIPPED = Path(__file__).parent
PREFIX = "labels_"


@dataclass(frozen=True)
class LabelMap:
    """Which labels are merged; other labels stay as they are."""

    name: str
    """Of the shipped map, or of the file without its folder."""
    merged: dict[str, tuple[str, ...]]
    """Merged class → its labels."""

    def apply(self, labels: Collection[str]) -> dict[str, str]:
        """Each of the `labels` → its name after merging.

        Raises `DataError` if the map names none of them: it is another data set's.
        """
        new = {label: name for name, group in self.merged.items() for label in group}
        if not any(label in new for label in labels):
            raise DataError(
                f"--merge-labels {self.name}: names {shown(list(new), 4)}, and none of the data's labels "
                f"({shown(sorted(labels), 8)}); name a map of these"
            )
        return {label: new.get(label, label) for label in labels}


def shipped_maps() -> list[str]:
    """Names of the maps in the package."""
    return sorted(path.stem.removeprefix(PREFIX) for path in SHIPPED.glob(f"{PREFIX}*.yaml"))


def load_label_map(spec: str) -> LabelMap:
    """The shipped map of this name, else the YAML file at this path, with lines `MERGED NAME: [LABEL, LABEL]`.

    Raises `SettingsError` for a file that cannot be read, labels that are not a list of texts, a label that
    appears twice, and a merged name that is itself merged into another.
    """
    where = f"--merge-labels {spec}"
    if spec in shipped_maps():
        path = SHIPPED / f"{PREFIX}{spec}.yaml"
    else:
        path = Path(spec).expanduser()
        if not path.exists():
            raise SettingsError(
                f"{where}: no such file, and no shipped map (there is: {', '.join(shipped_maps())}); give a "
                "YAML file with a line `MERGED NAME: [LABEL, LABEL]` for each merged class"
            )
    merged: dict[str, tuple[str, ...]] = {}
    place: dict[str, str] = {}
    for name, labels in read_yaml(path).items():
        if not isinstance(labels, list) or not labels:
            raise SettingsError(
                f"{where}: {name!r} holds {shown([labels])}; write a list of labels: `{name}: [LABEL, LABEL]`"
            )
        for label in labels:
            if not isinstance(label, str):
                raise SettingsError(
                    f"{where}: {name!r} holds {label!r}, which is not a text; put the label in quotes"
                )
            if label in place:
                raise SettingsError(
                    f"{where}: the label {label!r} appears twice, in {place[label]!r} and in {name!r}; list it "
                    "under one class"
                )
            place[label] = name
        merged[name] = tuple(labels)
    for name in merged:
        if place.get(name, name) != name:
            raise SettingsError(
                f"{where}: {name!r} is a merged class and is also merged into {place[name]!r}; list all labels "
                "of that class in one place"
            )
    return LabelMap(spec if spec in shipped_maps() else path.name, merged)
