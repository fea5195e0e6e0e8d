"""The defaults of a sweep that depend on what else is given: the demonstration, its space, its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lorasweep.tuning.record.config import SweepConfig, merge, read_config_file

# What a sweep without data runs: a few minutes on two cores. So few training rows that the space's known-good start,
# which suits more, leaves something to find; more than the 200 validation rows below which a sweep warns.
QUICKSTART: dict[str, Any] = {
    "data": {"max_train_rows": 240, "max_validation_rows": 240},
    "training": {"epochs": 2, "evaluations_per_epoch": 3},
    "search": {"space": "quickstart", "trials": 8},
    "compare_untuned": True,
}


def given_entries(
    entries: dict[str, Any], config: Path | str | SweepConfig | dict[str, Any] | None
) -> dict[str, Any]:
    """What options and a configuration ask for, as the nested mapping that a `SweepConfig` is built from.

    Args:
        entries: of the options, which override the configuration.
        config: a YAML file, its entries, or a whole configuration.

    Raises:
        SettingsError: the file cannot be read.
    """
    if isinstance(config, SweepConfig):
        config = config.model_dump(mode="json", exclude_unset=True)
    elif isinstance(config, str | Path):
        config = read_config_file(Path(config))
    return merge(config or {}, entries)


def sweep_config(entries: dict[str, Any], mlruns: Path) -> SweepConfig:
    """The configuration of a new sweep, with the defaults that depend on what is in it.

    Raises:
        SettingsError: one line with the setting, its value and what is allowed.
    """
    data = entries.get("data")
    path = data.get("path") if isinstance(data, dict) else None
    if path is None:
        entries = merge(_quickstart(entries), entries)
    elif not (isinstance(entries.get("search"), dict) and entries["search"].get("space")):
        entries = merge({"search": {"space": default_space(entries)}}, entries)
    entries.setdefault("name", free_name(stem(path), mlruns))
    return SweepConfig.build(entries, "settings")


def _quickstart(entries: dict[str, Any]) -> dict[str, Any]:
    """What the demonstration runs; in a given time, as many trials as that allows."""
    search = entries.get("search")
    if not isinstance(search, dict) or search.get("max_minutes") is None:
        return QUICKSTART
    return QUICKSTART | {"search": {k: v for k, v in QUICKSTART["search"].items() if k != "trials"}}


def default_space(entries: dict[str, Any]) -> str:
    """`lora_bert` where trials run on GPUs, of this machine or of the cluster, else `lora_cpu`.

    Raises:
        SettingsError: the cluster cannot be reached.
    """
    from lorasweep.tuning.quiet import quiet_environment

    resources = entries.get("resources")
    resources = resources if isinstance(resources, dict) else {}
    gpus = resources.get("gpus_per_trial")
    if gpus is None:
        quiet_environment()  # before Ray is imported
        from lorasweep.tuning.trials.hardware import find_nodes

        gpus = sum(node.gpus for node in find_nodes(resources.get("address")))
    return "lora_bert" if gpus else "lora_cpu"


def name_after(name: str, mlruns: Path) -> str:
    """The name itself, or where a sweep has it a free one: `news` and `news-1` become `news-2`."""
    if not (mlruns / "sweeps" / name).exists():
        return name
    return free_name(re.sub(r"-\d+$", "", name)[:70], mlruns)


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
