"""Adds trials to an existing sweep: the same search, with all that it has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorasweep.training.errors import SettingError, SettingsError
from lorasweep.tuning.record.config import SweepConfig, merge
from lorasweep.tuning.record.sweep import SweepRecord

# Settings that may change; any other change would make it a different search.
CHANGEABLE = ("search.trials", "search.max_failures", "choice", "keep", "compare_untuned", "resources")
# The trials' checkpoints are there.
FIXED = ("resources.storage",)


def extended_config(sweep: SweepRecord, entries: Mapping[str, Any]) -> SweepConfig:
    """A sweep's configuration with more trials.

    Args:
        entries: changed settings as a nested mapping, such as `{"search": {"trials": 30}}`; the others stay.

    Raises:
        SettingsError: the sweep is running, has that many trials already, or a setting differs that may not change.
    """
    before = sweep.config
    if sweep.state == "running":
        see = sweep.folder.command("status")
        raise SettingsError(f"sweep {sweep.name}: is running; see: {see}")
    after = SweepConfig.build(merge(before.model_dump(mode="json"), dict(entries)), "settings")
    # An older configuration names no objective: its metric.
    old, new = (_flat(c.model_dump(mode="json")) | {"search.objective": c.objective} for c in (before, after))
    for key in old.keys() | new.keys():
        changeable = key.startswith(CHANGEABLE) and key not in FIXED
        if old.get(key) != new.get(key) and not changeable:
            raise SettingError(
                key.split("."),
                f"sweep {sweep.name} has {old.get(key)!r}; leave that out to add trials to it, or choose another "
                "--name",
                value=new.get(key),
            )
    if after.search.trials <= before.search.trials:
        again = sweep.folder.command("resume")
        raise SettingsError(
            f"sweep {sweep.name}: the name is in use, by a sweep of {before.search.trials} trials; choose "
            f"another --name, ask for more --trials, or continue it: {again}"
        )
    return after


def _flat(entries: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in entries.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        flat |= inner
    return flat
