"""Adds trials to an existing sweep: the same search, with all that it has learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from lorasweep.training.errors import SettingError, SettingsError
from lorasweep.tuning.record.config import SearchSettings, SweepConfig, merge
from lorasweep.tuning.record.finalists import comparable, searched_trials
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord

# Settings that may change; any other change would make it a different search.
CHANGEABLE = (
    "search.trials",
    "search.max_minutes",
    "search.patience",
    "search.finalists",
    "search.max_failures",
    "choice",
    "keep",
    "compare_untuned",
    "resources",
)
# What asks for more of a search: what is not asked for again with one of them no longer ends it.
MORE = ("trials", "max_minutes", "patience")
# The trials' checkpoints are there.
FIXED = ("resources.storage",)


def extended_config(sweep: SweepRecord, entries: Mapping[str, Any]) -> SweepConfig:
    """A sweep's configuration with more trials, minutes or patience.

    A number of trials is run in full: limits of the sweep that are not given with it are lifted.

    Args:
        entries: changed settings as a nested mapping, such as `{"search": {"trials": 30}}`; the others stay.

    Raises:
        SettingsError: the sweep is running, would end at once, or a setting differs that may not change.
    """
    before = sweep.config
    if sweep.state == "running":
        see = sweep.folder.command("status")
        raise SettingsError(f"sweep {sweep.name}: is running; see: {see}")
    asked = {name for name in MORE if entries.get("search", {}).get(name) is not None}
    changed = merge(before.model_dump(mode="json"), dict(entries))
    if "trials" in asked:
        # So many are wanted, whatever ended the search before they were reached.
        changed["search"] |= {name: None for name in MORE if name not in asked}
    after = SweepConfig.build(changed, "settings")
    # Named or not, the metric is the same objective.
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
    _check_more(sweep, after.search, asked)
    return after


def confirmed_config(sweep: SweepRecord, confirm: str) -> SweepConfig:
    """A sweep's configuration with other seeds for its best trials, and nothing else changed.

    Args:
        confirm: `KxS`, as `choice.confirm`.

    Raises:
        SettingsError: it is written otherwise, or a finished sweep keeps the checkpoints of fewer trials.
    """
    entries = merge(sweep.config.model_dump(mode="json"), {"choice": {"confirm": confirm}})
    config = SweepConfig.build(entries, "settings")
    count, seeds = config.choice.confirmed
    best = comparable(sweep.ranked())[:count]
    kept = len(kept_best(best))
    if sweep.state == "finished" and kept < len(best):
        # Without its checkpoint a trial could be confirmed, but neither tested nor exported.
        less = f"use {kept}x{seeds}, or " if kept else ""
        raise SettingError(
            ["choice", "confirm"],
            f"sweep {sweep.name} keeps the checkpoints of its best {kept}; {less}add trials with --extend",
            value=confirm,
        )
    return config


def kept_best(ranked: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The best trials down to the first without a checkpoint: those that can be confirmed on other seeds.

    Args:
        ranked: best first.
    """
    return list(takewhile(lambda trial: trial.checkpoint, comparable(ranked)))


def trials_of(sweep: SweepRecord) -> int:
    """How many trials a sweep has, or is to have: those that it asked for, unless something else ends it."""
    search, stopped = sweep.config.search, sweep.result is not None and sweep.result.stopped_by is not None
    return len(searched_trials(sweep.trials)) if search.open or stopped else search.trials


def _check_more(sweep: SweepRecord, after: SearchSettings, asked: set[str]) -> None:
    """Refuse a sweep that would end at once.

    Raises:
        SettingsError: it has that many trials, minutes or trials without a gain already.
    """
    name, before, result = sweep.name, sweep.config.search, sweep.result
    stopped_by = result.stopped_by if result else None
    if "trials" in asked:
        more = after.trials > trials_of(sweep)
    elif "max_minutes" in asked:
        more = _rises(before.max_minutes, after.max_minutes)
    else:
        more = _rises(before.patience, after.patience)
    if not more:
        size = f"{before.max_minutes:g} minutes" if before.open else f"{trials_of(sweep)} trials"
        ask = "--trials or --max-minutes" if before.max_minutes is not None else "--trials"
        raise SettingsError(
            f"sweep {name}: the name is in use, by a sweep of {size}; choose another --name, ask for more {ask}, or "
            f"continue it: {sweep.folder.command('resume')}"
        )
    spent = result.seconds / 60 if result else 0.0
    if after.max_minutes is not None and after.max_minutes <= spent:
        raise SettingError(
            ["search", "max_minutes"],
            f"sweep {name} has taken {spent:.1f} minutes; ask for more",
            value=after.max_minutes,
        )
    if stopped_by == "time" and not asked & {"trials", "max_minutes"}:
        raise SettingsError(f"sweep {name}: its time was over; ask for more --max-minutes or --trials")
    if (
        stopped_by == "patience"
        and after.patience is not None
        and not _rises(before.patience, after.patience)
    ):
        raise SettingsError(
            f"sweep {name}: --patience {before.patience} ended it; ask for more --patience or --trials"
        )


def _rises(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after > before


def _flat(entries: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in entries.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        flat |= inner
    return flat
