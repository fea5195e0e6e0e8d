"""From what the command line and a settings file ask for to a `SweepConfig`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lorasweep.tuning.command_line.options import PLACES
from lorasweep.tuning.record.config import SweepConfig, merge, read_config_file, validation_part

# What `lorasweep run` does when it is given no data: a few minutes on two cores.
QUICKSTART: dict[str, Any] = {
    "data": {"max_train_rows": 480, "max_validation_rows": 160},
    "training": {"epochs": 2, "evaluations_per_epoch": 3},
    "search": {"space": "quickstart", "trials": 8},
    "compare_untuned": True,
}


def sweep_config(options: dict[str, Any], config_file: Path | None, mlruns: Path) -> SweepConfig:
    """The sweep that options and a settings file ask for; options go before the file.

    Raises:
        SettingsError: one line with the setting, its value and what is allowed.
    """
    return sweep_config_of(asked_for(options, config_file), mlruns)


def sweep_config_of(entries: dict[str, Any], mlruns: Path) -> SweepConfig:
    """A sweep from a nested mapping, with the defaults that depend on what is in it.

    Raises:
        SettingsError: one line with the setting, its value and what is allowed.
    """
    data = entries.get("data")
    path = data.get("path") if isinstance(data, dict) else None
    if path is None:
        entries = merge(QUICKSTART, entries)
    elif not (isinstance(entries.get("search"), dict) and entries["search"].get("space")):
        entries = merge({"search": {"space": default_space(entries)}}, entries)
    data = entries.get("data")
    if isinstance(data, dict) and isinstance(data.get("max_train_rows"), int):
        # A search on a part of the training rows would else spend most of its time on evaluations.
        entries["data"] = {"max_validation_rows": validation_part(data["max_train_rows"])} | data
    entries.setdefault("name", free_name(stem(path), mlruns))
    return SweepConfig.build(entries, "settings")


def asked_for(options: dict[str, Any], config_file: Path | None) -> dict[str, Any]:
    """What options and a settings file name, as the nested mapping that a `SweepConfig` is built from."""
    given: dict[str, Any] = {}
    for option, value in options.items():
        if value is None or value == []:
            continue
        *groups, key = PLACES[option]
        place = given
        for group in groups:
            place = place.setdefault(group, {})
        if option in ("text", "columns"):
            value = split_names(value)
        place[key] = not value if option == "no_register" else value
    return merge(read_config_file(config_file) if config_file else {}, given)


def default_space(entries: dict[str, Any]) -> str:
    """`lora_bert` where trials run on GPUs, else `lora_cpu`."""
    import torch

    resources = entries.get("resources")
    asked = resources.get("gpus_per_trial") if isinstance(resources, dict) else None
    return "lora_bert" if asked or (asked is None and torch.cuda.device_count()) else "lora_cpu"


def split_names(value: str | list[str]) -> list[str]:
    """Column names, given one by one or with commas between them."""
    values = [value] if isinstance(value, str) else value
    return [name.strip() for part in values for name in part.split(",") if name.strip()]


def free_name(words: str, mlruns: Path) -> str:
    """A name that no sweep has yet: the words, and a number."""
    number = 1
    while (mlruns / "sweeps" / f"{words}-{number}").exists():
        number += 1
    return f"{words}-{number}"


def stem(path: object) -> str:
    """The name of a data file without its endings, in letters, digits and hyphens; that of the sample for none."""
    file = Path(path).name if isinstance(path, str) else "sample-news"
    words = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"(\.[A-Za-z]+)+$", "", file))
    return words.strip("-").lower()[:60].rstrip("-") or "sweep"
