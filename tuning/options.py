"""The command line's options for a sweep, and how they become a `SweepConfig`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from tuning.config import SweepConfig, merge, read_config_file

DATA, MODEL, SEARCH = "Data", "Model and training", "Search"
WINNER, RESOURCES, RECORD = "Winner", "Resources", "Record"


def _option(*names: str, group: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, show_default=False, **more)


MLRUNS = Path("mlruns")
SweepName = Annotated[
    str | None, typer.Argument(help="A sweep's name; the newest if left out.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Mlruns = Annotated[
    Path,
    typer.Option("--mlruns", help="Folder of sweeps and records.", envvar="LORASWEEP_MLRUNS"),
]
Data = Annotated[
    str | None, _option("--data", group=DATA, help="File of texts and labels; without it: the sample news.")
]
Validation = Annotated[str | None, _option("--validation", group=DATA, help="File of validation rows.")]
Test = Annotated[str | None, _option("--test", group=DATA, help="File of test rows.")]
Text = Annotated[
    list[str] | None, _option("--text", group=DATA, help="Text column; give it twice for a pair.")
]
Label = Annotated[str | None, _option("--label", group=DATA, help="Label column.")]
Columns = Annotated[
    str | None, _option("--columns", group=DATA, help="Names for a file without a header: a,b,c.")
]
SplitColumn = Annotated[
    str | None, _option("--split-column", group=DATA, help="Column that says train, validation or test.")
]
SplitBy = Annotated[
    str | None,
    _option("--split-by", group=DATA, help="random, or date: the newest tenth is the test [random]."),
]
Date = Annotated[
    str | None, _option("--date", group=DATA, help="Date column of --split-by date [the one called date].")
]
MergeLabels = Annotated[
    str | None,
    _option("--merge-labels", group=DATA, help="Labels that mean the same as one: huffpost, or a YAML map."),
]
MaxTrainRows = Annotated[
    int | None,
    _option("--max-train-rows", group=DATA, help="Search on a stratified part of the training rows."),
]
MaxValidationRows = Annotated[
    int | None,
    _option("--max-validation-rows", group=DATA, help="Evaluate on a part [a quarter of --max-train-rows]."),
]
KeepSmall = Annotated[
    bool | None, _option("--keep-small-classes", group=DATA, help="Keep classes too small for every split.")
]
Base = Annotated[
    str | None, _option("--base-model", group=MODEL, help="Hub id, local folder, or minilm (the default).")
]
Epochs = Annotated[int | None, _option("--epochs", group=MODEL, help="Epochs of a full trial [3].")]
Evaluations = Annotated[
    int | None, _option("--evaluations-per-epoch", group=MODEL, help="Each is a rung of ASHA [2].")
]
PrecisionOption = Annotated[
    str | None, _option("--precision", group=MODEL, help="auto, bf16, fp16 or fp32 [auto].")
]
MaxLength = Annotated[
    int | None, _option("--max-length", group=MODEL, help="Tokens of a text that are read [128].")
]
MicroBatch = Annotated[
    int | None, _option("--micro-batch-size", group=MODEL, help="Rows on the device at once.")
]
ClassWeights = Annotated[
    bool | None, _option("--class-weights", group=MODEL, help="Weigh the loss by inverse class frequency.")
]
MetricOption = Annotated[
    str | None, _option("--metric", group=SEARCH, help="accuracy, macro_f1 or loss [accuracy].")
]
Seed = Annotated[
    int | None, _option("--seed", group=SEARCH, help="Seed of splits, order and new layers [0].")
]
Space = Annotated[
    str | None, _option("--space", group=SEARCH, help="Shipped space, YAML file, or file.py:function.")
]
Trials = Annotated[int | None, _option("--trials", group=SEARCH, help="Trials in all [20].")]
Sampler = Annotated[str | None, _option("--sampler", group=SEARCH, help="tpe or random [tpe].")]
Asha = Annotated[bool | None, _option("--asha/--no-asha", group=SEARCH, help="Stop weak trials early.")]
Reduction = Annotated[
    int | None, _option("--reduction-factor", group=SEARCH, help="At a halving the best 1/n go on [3].")
]
Grace = Annotated[
    int | None, _option("--grace-rungs", group=SEARCH, help="Evaluations before a trial may be stopped [1].")
]
Untuned = Annotated[
    bool | None,
    _option("--compare-untuned/--no-compare-untuned", group=SEARCH, help="Train the untuned default too."),
]
MaxFailures = Annotated[
    int | None,
    _option("--max-failures", group=SEARCH, help="Times a trial whose process died goes on again [2]."),
]
WarmStart = Annotated[
    str | None, _option("--warm-start", group=SEARCH, help="A sweep whose results to learn from.")
]
Choose = Annotated[
    str | None,
    _option("--choose", group=WINNER, help="best, or within the margin the smallest or fastest [best]."),
]
Within = Annotated[
    float | None, _option("--within", group=WINNER, help="That margin in points of the metric [0.5].")
]
Confirm = Annotated[
    str | None, _option("--confirm", group=WINNER, help="3x3: the best 3 again on 3 other seeds each.")
]
Baselines = Annotated[
    bool | None,
    _option("--baselines/--no-baselines", group=WINNER, help="Score a linear model and the majority too."),
]
Gpus = Annotated[
    float | None, _option("--gpus-per-trial", group=RESOURCES, help="GPUs a trial, or a fraction; 0: none.")
]
Cpus = Annotated[int | None, _option("--cpus-per-trial", group=RESOURCES, help="Cores a trial.")]
Concurrency = Annotated[int | None, _option("--concurrency", group=RESOURCES, help="Trials at once.")]
Address = Annotated[str | None, _option("--address", group=RESOURCES, help="A running Ray cluster to join.")]
Storage = Annotated[
    str | None,
    _option("--storage", group=RESOURCES, help="Folder or URI for trial state that all nodes share."),
]
Name = Annotated[str | None, _option("--name", group=RECORD, help="The sweep's name.")]
Keep = Annotated[
    int | None, _option("--keep", group=RECORD, help="Best trials whose adapters go to MLflow [3].")
]
TrackingUri = Annotated[
    str | None,
    _option("--tracking-uri", group=RECORD, help="MLflow store [MLFLOW_TRACKING_URI, or mlruns/mlflow.db]."),
]
Register = Annotated[
    str | None,
    _option("--register", group=RECORD, help="Registered model for the winner [the sweep's name]."),
]
Registering = Annotated[
    bool | None, _option("--no-register", group=RECORD, help="Leave the winner out of the model registry.")
]
SystemMetrics = Annotated[
    bool | None,
    _option("--system-metrics", group=RECORD, help="Measure the trials' processes: CPU, memory, GPU."),
]
Config = Annotated[
    Path | None, _option("--config", group=RECORD, help="YAML file of settings; options go before it.")
]

# What `lorasweep run` does when it is given no data: a few minutes on two cores.
QUICKSTART: dict[str, Any] = {
    "data": {"max_train_rows": 480, "max_validation_rows": 160},
    "training": {"epochs": 2, "evaluations_per_epoch": 3},
    "search": {"space": "quickstart", "trials": 8},
    "compare_untuned": True,
}

# Fewer validation rows than these would choose the winner by luck.
SMALLEST_VALIDATION = 200

# Option → the place of its value in a `SweepConfig`.
PLACES: dict[str, tuple[str, ...]] = {
    "data": ("data", "path"),
    "validation": ("data", "validation_path"),
    "test": ("data", "test_path"),
    "text": ("data", "text"),
    "label": ("data", "label"),
    "columns": ("data", "columns"),
    "split_column": ("data", "split_column"),
    "split_by": ("data", "split_by"),
    "date": ("data", "date"),
    "merge_labels": ("data", "merge_labels"),
    "max_train_rows": ("data", "max_train_rows"),
    "max_validation_rows": ("data", "max_validation_rows"),
    "keep_small_classes": ("data", "keep_small_classes"),
    "base_model": ("base_model",),
    "epochs": ("training", "epochs"),
    "evaluations_per_epoch": ("training", "evaluations_per_epoch"),
    "precision": ("training", "precision"),
    "max_length": ("training", "max_length"),
    "micro_batch_size": ("training", "micro_batch_size"),
    "class_weights": ("training", "class_weights"),
    "metric": ("training", "metric"),
    "seed": ("training", "seed"),
    "space": ("search", "space"),
    "trials": ("search", "trials"),
    "sampler": ("search", "sampler"),
    "asha": ("search", "asha"),
    "reduction_factor": ("search", "reduction_factor"),
    "grace_rungs": ("search", "grace_rungs"),
    "max_failures": ("search", "max_failures"),
    "warm_start": ("search", "warm_start"),
    "choose": ("choice", "rule"),
    "within": ("choice", "margin"),
    "confirm": ("choice", "confirm"),
    "baselines": ("choice", "baselines"),
    "compare_untuned": ("compare_untuned",),
    "gpus_per_trial": ("resources", "gpus_per_trial"),
    "cpus_per_trial": ("resources", "cpus_per_trial"),
    "concurrency": ("resources", "concurrency"),
    "address": ("resources", "address"),
    "storage": ("resources", "storage"),
    "name": ("name",),
    "keep": ("keep",),
    "tracking_uri": ("tracking_uri",),
    "register": ("registry", "name"),
    "no_register": ("registry", "enabled"),
    "system_metrics": ("system_metrics",),
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
        part = max(data["max_train_rows"] // 4, SMALLEST_VALIDATION)
        entries["data"] = {"max_validation_rows": part} | data
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
