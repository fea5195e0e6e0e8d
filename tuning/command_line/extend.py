"""More trials for a sweep that exists: the same search, which goes on knowing what it has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.command_line.to_config import asked_for
from lorasweep.tuning.record.config import SweepConfig, merge
from lorasweep.tuning.record.folder import SweepFolder

# What may be asked for anew. Whatever else differs would make it another search.
CHANGEABLE = ("search.trials", "search.max_failures", "choice", "keep", "compare_untuned", "resources")
# Where the trials' checkpoints lie.
FIXED = ("resources.storage",)


def extended_config(folder: SweepFolder, options: dict[str, Any], config_file: Path | None) -> SweepConfig:
    """The sweep's configuration with more trials.

    Args:
        options: as given on the command line; those that are left out stay as they were.

    Raises:
        SettingsError: the sweep runs, no more trials are asked for, or a setting differs that has to stay.
    """
    before = folder.config()
    if folder.state() == "running":
        raise SettingsError(f"sweep {folder.name}: is running; see: lorasweep status {folder.name}")
    asked = asked_for(options, config_file)
    after = SweepConfig.build(merge(before.model_dump(mode="json"), asked), "settings")
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    for key in old.keys() | new.keys():
        changeable = key.startswith(CHANGEABLE) and key not in FIXED
        if old.get(key) != new.get(key) and not changeable:
            raise SettingsError(
                f"sweep {folder.name}: {key} is {old.get(key)!r} there and {new.get(key)!r} here; leave that "
                "out to add trials to the sweep, or choose another --name"
            )
    if after.search.trials <= before.search.trials:
        raise SettingsError(
            f"sweep {folder.name}: the name is in use, by a sweep of {before.search.trials} trials; choose "
            f"another --name, ask for more --trials, or go on with it: lorasweep resume {folder.name}"
        )
    return after


def _flat(entries: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in entries.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        flat |= inner
    return flat
