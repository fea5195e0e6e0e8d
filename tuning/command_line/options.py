"""The command line's options for a sweep, and where each stands in its `SweepConfig`.

Imported for `--help` too: nothing heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
