"""`SweepConfig`: all settings of a sweep as one typed tree, saved with the sweep."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from lorasweep.training.errors import SettingError
from lorasweep.training.files.yaml_file import dump_yaml, read_yaml
from lorasweep.training.settings import (
    MINILM,
    DataSettings,
    Metric,
    Settings,
    TrainingSettings,
    folder_in_full,
)
from lorasweep.training.threshold_rules import Threshold

# Of a search on a part of the rows, unless another number is asked for.
FINALISTS = 3
CONFIRM = re.compile(r"[1-9]\d?[xX][1-9]\d?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
# A URI that lacks a slash, and no drive of Windows.
ONE_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
# MLflow and its URIs refuse other characters.
MODEL_NAME = re.compile(r"\w[\w .-]{0,249}")
# The address that stands for this machine, as in Ray.
LOCAL = "local"
# Number of trials of a sweep that only its time or its patience ends.
OPEN_TRIALS = 10_000
MODEL_NAME_RULE = (
    "begin with a letter or digit, and use letters, digits, spaces, '.', '_' and '-' alone, 250 at most"
)


# What is allowed, by pydantic's name for what is wrong; its own message for any other.
RULES = {
    "literal_error": "use {expected}",
    "greater_than_equal": "use {ge:g} or more",
    "greater_than": "use more than {gt:g}",
    "less_than_equal": "use {le:g} or less",
    "less_than": "use less than {lt:g}",
    "int_parsing": "use a whole number",
    "int_type": "use a whole number",
    "int_from_float": "use a whole number",
    "float_parsing": "use a number",
    "float_type": "use a number",
    "bool_parsing": "use true or false",
    "bool_type": "use true or false",
    "string_type": "use a text",
    "tuple_type": "use a list of names",
    "model_type": "use a mapping of settings",
}


class SearchSettings(Settings):
    """How trials are proposed and weak ones stopped."""

    space: str = Field(
        "lora_cpu",
        description="Shipped search space, YAML file, or Python function (FILE.py:FUNCTION); by default lora_bert on "
        "GPUs, lora_cpu on CPU cores.",
    )
    trials: int = Field(
        20, ge=1, description="Number of trials; with --max-minutes, as many as the time allows unless given."
    )
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="Optuna sampler that proposes the hyperparameters."
    )
    objective: Metric | None = Field(
        None,
        description="Metric by which ASHA and the sampler compare trials; by default that of --metric.",
    )
    asha: bool = Field(True, description="Stop weak trials early (asynchronous successive halving).")
    reduction_factor: int = Field(
        2,
        ge=2,
        description="At each of its stops ASHA keeps the best 1/n of trials; the next stop is n times as late.",
    )
    grace_rungs: int | None = Field(
        None,
        ge=1,
        description="Evaluations before ASHA may stop a trial; by default a third of a full trial's.",
    )
    proxy: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Search on a stratified part of the rows: a share below 1, or a number of training rows.",
    )
    finalists: int | None = Field(
        None,
        ge=1,
        description="With --proxy, number of best trials that are trained again on all rows; by default 3.",
    )
    max_minutes: float | None = Field(
        None, gt=0, description="Time limit of the whole sweep in minutes, with what comes after the trials."
    )
    patience: int | None = Field(
        None, ge=1, description="End the search when this many trials in a row brought no gain above noise."
    )
    max_failures: int = Field(
        2,
        ge=0,
        description="How often a trial whose process crashed is restarted before it counts as failed.",
    )
    warm_start: str | None = Field(
        None,
        description="Name of an earlier sweep with the same space: the sampler learns from its trials, and the first "
        "trial repeats its best.",
    )

    @model_validator(mode="before")
    @classmethod
    def _time_in_place_of_a_number(cls, entries: Any) -> Any:
        if isinstance(entries, dict) and entries.get("max_minutes") is not None and "trials" not in entries:
            return {**entries, "trials": OPEN_TRIALS}
        return entries

    @property
    def open(self) -> bool:
        """Whether no number of trials was asked for: the time ends the sweep."""
        return self.trials >= OPEN_TRIALS

    @field_validator("proxy")
    @classmethod
    def _proxy_is_a_share_or_rows(cls, proxy: float | None) -> float | None:
        if proxy is not None and proxy >= 1 and proxy != round(proxy):
            raise ValueError("use a share below 1, or a whole number of training rows")
        return proxy

    @field_validator("finalists")
    @classmethod
    def _finalists_of_a_part(cls, finalists: int | None, info: ValidationInfo) -> int | None:
        if finalists is not None and info.data.get("proxy") is None:
            raise ValueError("goes with --proxy; without that, all trials train on all rows")
        return finalists

    def grace(self, rungs: int) -> int:
        """Evaluations before a trial may be stopped, of a full trial's.

        On recorded curves, trials that are stopped after less than a third of their training are often the better ones.
        """
        return self.grace_rungs or max(1, rungs // 3)

    @property
    def finalists_wanted(self) -> int:
        """How many of the best trials of a search on a part are trained on all rows; 0 for one on all rows."""
        return 0 if self.proxy is None else self.finalists or FINALISTS


class ChoiceSettings(Settings):
    """How the winner is chosen after the trials."""

    rule: Literal["best", "smallest", "fastest"] = Field(
        "best", description="Choose the best trial, or the smallest or fastest one within the margin."
    )
    margin: float = Field(
        0.5,
        ge=0,
        description="With --choose smallest or fastest, by how many points (hundredths) of the metric it may be "
        "worse than the best.",
    )
    confirm: str | None = Field(
        None,
        description="Retrain the best K trials on S other seeds, such as 3x3, and choose by their mean score.",
    )
    threshold: Threshold | None = Field(
        None,
        description="Decision threshold for two classes or several labels a text: a score that it is chosen by on the "
        "validation split (f1, mcc, f2 and others), none, or a number.",
    )
    baselines: bool = Field(
        True, description="Also score TF-IDF + logistic regression and the majority class on the test split."
    )

    @field_validator("confirm")
    @classmethod
    def _confirm_is_two_numbers(cls, confirm: str | None) -> str | None:
        if confirm is not None and not CONFIRM.fullmatch(confirm):
            raise ValueError("write KxS, such as 3x3 for the best 3 trials on 3 other seeds each")
        return confirm

    @property
    def confirmed(self) -> tuple[int, int]:
        """Number of trials to confirm, and seeds for each; (0, 0) for none."""
        if self.confirm is None:
            return 0, 0
        trials, seeds = self.confirm.lower().split("x")
        return int(trials), int(seeds)


class ResourceSettings(Settings):
    """What each trial gets; None is derived from the machine or cluster."""

    gpus_per_trial: float | None = Field(
        None, ge=0, description="GPUs per trial, or a fraction of one; 0 trains on CPU cores."
    )
    cpus_per_trial: int | None = Field(None, ge=1, description="CPU cores per trial.")
    concurrency: int | None = Field(None, ge=1, description="Trials that run at the same time.")
    address: str | None = Field(
        None,
        description="Join the Ray cluster at this address, or auto for this machine's, instead of starting Ray.",
    )
    storage: str | None = Field(
        None,
        description="Shared folder or URI, such as s3://..., for checkpoints and the sweep's record; clusters of "
        "several nodes need it.",
    )

    @field_validator("storage")
    @classmethod
    def _storage_in_full(cls, storage: str | None) -> str | None:
        if storage == "" or (storage is not None and ONE_SLASH.match(storage)):
            raise ValueError("name a folder, or a URI such as s3://bucket/folder")
        # As typed it would hold in this folder only. A link stays one: other nodes may lack what it leads to.
        if storage is None or "://" in storage:
            return storage
        with suppress(RuntimeError):  # of a user without a home
            return os.path.normpath(Path(storage).expanduser().absolute())
        return storage

    @field_validator("address")
    @classmethod
    def _local_is_no_cluster(cls, address: str | None) -> str | None:
        # A resumed sweep leaves its cluster with it.
        return None if address == LOCAL else address


class RegistrySettings(Settings):
    """Whether and how the winner enters MLflow's model registry."""

    enabled: bool = Field(True, description="Register the winner as a model version in MLflow.")
    name: str | None = Field(
        None,
        description="Name of the model in MLflow's registry of which the winner becomes a version; by default the "
        "sweep's.",
    )

    @field_validator("name")
    @classmethod
    def _name_is_a_models(cls, name: str | None) -> str | None:
        if name is not None and not MODEL_NAME.fullmatch(name):
            raise ValueError(MODEL_NAME_RULE)
        return name

    @model_validator(mode="after")
    def _name_has_a_use(self) -> RegistrySettings:
        if self.name is not None and not self.enabled:
            raise ValueError("a name, but nothing to register: leave out the name or enable the registry")
        return self


class SweepConfig(Settings):
    """All settings of one sweep. Unknown keys are refused.

    Example:
        >>> config = SweepConfig.model_validate({"name": "news", "search": {"trials": 40}})
        >>> config.search.trials, config.training.metric
        (40, 'accuracy')
    """

    name: str = Field(
        description="Name of the sweep and its folder; by default from the data file, with a number."
    )
    data: DataSettings = DataSettings()
    base_model: str = Field(MINILM, description="Hub id or local folder of the base model, or minilm.")
    training: TrainingSettings = TrainingSettings()
    search: SearchSettings = SearchSettings()
    choice: ChoiceSettings = ChoiceSettings()
    resources: ResourceSettings = ResourceSettings()
    keep: int = Field(
        3,
        ge=1,
        description="Number of best trials whose checkpoints are kept for export and --confirm, and whose adapters "
        "go to MLflow.",
    )
    compare_untuned: bool = Field(
        False,
        description="Also train LoRA with rank 8, query and value, learning rate 2e-5, and compare the winner with it.",
    )
    tracking_uri: str | None = Field(None, description="MLflow tracking store: a database or a server.")
    registry: RegistrySettings = RegistrySettings()
    system_metrics: bool = Field(False, description="Record the CPU, memory and GPU use of each trial.")

    @field_validator("base_model")
    @classmethod
    def _folder_in_full(cls, name: str) -> str:
        return folder_in_full(name)

    @property
    def objective(self) -> Metric:
        """What stops trials and guides the sampler."""
        return self.search.objective or self.training.metric

    @property
    def registered_name(self) -> str:
        """Name of the registered model for the winner."""
        return self.registry.name or self.name

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        return check_name(name)

    def to_yaml(self) -> str:
        """The configuration as YAML; `build` reads its entries back as an equal one."""
        return dump_yaml(self.model_dump(mode="json"))

    @classmethod
    def build(cls, entries: dict[str, Any], source: str) -> SweepConfig:
        """Validate a nested mapping.

        Args:
            source: where the entries come from, for the message: a file or `command line`.

        Raises:
            SettingError: names the key, its value and what is allowed.
        """
        try:
            return cls.model_validate(entries)
        except ValidationError as error:
            raise setting_error(error, source) from error


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a YAML file of sweep settings, without validating it.

    Raises:
        SettingsError: no such file, not YAML, a key that stands twice, or not a mapping.
    """
    return read_yaml(path, "--config")


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` updated by `over`, mapping by mapping; returns a new mapping."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def check_name(name: str) -> str:
    """The name of a sweep or a comparison, which names its folder, too. Raises `ValueError` for one that cannot."""
    if not NAME.fullmatch(name):
        raise ValueError("use letters, digits, '.', '_' and '-', at most 80, and a letter or digit first")
    return name


def setting_error(error: ValidationError, source: str) -> SettingError:
    """The first problem of a pydantic error: key, value, what is allowed."""
    problem = error.errors(include_url=False)[0]
    place, kind = [str(part) for part in problem["loc"]], problem["type"]
    if kind == "extra_forbidden":
        return SettingError(place, "no such setting; any sweep's config.yaml lists them", source=source)
    if kind == "missing":
        return SettingError(place, "is missing", source=source)
    rule = RULES.get(kind, "").format_map(problem.get("ctx", {})).replace("'", "")
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "use")
    return SettingError(place, rule or message, value=problem["input"], source=source)
