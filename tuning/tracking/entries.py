"""A sweep's records as MLflow's params, metrics and tags. Nothing here talks to a store."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from lorasweep.training.metrics import metric_key
from lorasweep.training.settings import Hyperparameters, Metric, higher_is_better
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.results import SweepResult, TestScores
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials
from lorasweep.tuning.record.words import SHORT_NAMES, parameters_text, setting_text, state_text
from lorasweep.tuning.tracking.store import hide_passwords

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

SWEEP, KIND, TRIAL, STATE, METRIC, OBJECTIVE, START = (
    f"lorasweep.{name}" for name in ("sweep", "kind", "trial", "state", "metric", "objective", "start")
)
ENDED, ERROR, NOTES, WINNER = (f"lorasweep.{name}" for name in ("ended", "error", "notes", "winner"))
# Of a finalist, the trial of the search on a part that has its settings.
FINALIST_OF = "lorasweep.finalist_of"
# What a trial's best evaluation ran on.
RAN_ON = {name: f"lorasweep.{name}" for name in ("node", "device", "precision", "versions")}
# Whether a trial is within noise of the winner, and what a sweep's search added.
NEAR, ADDED = (f"lorasweep.{name}" for name in ("near", "added"))
# Read by lorasweep alone: MLflow's pages hide tags that begin with `mlflow.`.
ID, ADAPTER, REPORT, NOTE_VERSION = (
    f"mlflow.lorasweep.{name}" for name in ("id", "adapter", "report", "note")
)

# Tags that MLflow's table shows in place of params, whose digits it shows all: hyperparameters that are fractions, by
# the names that narrow tables have for them, and the trainable parameters.
FRACTIONS = {
    name: SHORT_NAMES.get(name, name)
    for name, field in Hyperparameters.model_fields.items()
    if field.annotation in (float, float | None)
}
# Shown of every sweep, searched or not.
ALWAYS_ROUNDED = ("alpha", "learning_rate")
SIZE = "size"

# Limits of MLflow, in characters.
KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
DATASET_NAME_LENGTH, PROFILE_LENGTH = 500, 16_000
# MLflow allows 36 but shows them in each row of its table; the whole fingerprint is a param.
DIGEST_LENGTH = 10
FORBIDDEN = re.compile(r"[^\w.\- ]")

# MLflow draws what begins with `system/` on a page of its own.
EVALUATION_METRICS = {
    "accuracy": "val_accuracy",
    "macro_f1": "val_macro_f1",
    "loss": "val_loss",
    "train_loss": "train_loss",
    "learning_rate": "system/learning_rate",
    "seconds": "system/seconds",
    "samples_per_second": "system/samples_per_second",
}
# The best score so far, by the sweep's metric. That of a search on a part of the rows is no score on all of them:
# under a name of its own it does not stand above the winner's in a table in the order of scores.
BEST, BEST_ON_PART = "score", "part/score"
# Passes over the training rows; grows from rung to rung.
RUNG_METRIC = "system/epoch"

# MLflow has no status for a run that was stopped early on purpose. FAILED and KILLED would show it in red, so it
# is FINISHED, and the tags say how.
TRIAL_STATUS = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
SWEEP_STATUS = {"running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


def sweep_params(config: SweepConfig, summary: Mapping[str, Any]) -> dict[str, str]:
    """The resolved configuration and the plan's summary, nested names joined by dots, unset entries left out."""
    entries = config.model_dump(mode="json", exclude_none=True)
    if config.search.open:
        del entries["search"]["trials"]
    return params_of(summary) | params_of(entries)


def trial_params(trial: TrialRecord) -> dict[str, str]:
    """All hyperparameters of a trial, searched or not, and its trainable parameters once they are counted."""
    entries = trial.hyperparameters.model_dump()
    if trial.trainable_parameters is not None:
        entries["trainable_parameters"] = trial.trainable_parameters
    return params_of(entries)


def trial_tags(
    trial: TrialRecord, metric: Metric, objective: Metric, rungs: int, stopping: str
) -> dict[str, str | None]:
    """How a trial stands; None for a tag that it is not to have.

    Args:
        objective: what stops trials and guides the sampler.
        rungs: evaluations of a full trial.
        stopping: label of the sweep's stopping rule.
    """
    before = f"{state_text(trial, stopping)} at rung {trial.reached} of {rungs}"
    ends = {
        "completed": before if trial.stopped_by == "early_end" else f"completed {rungs} rungs",
        "stopped": before,
        "failed": f"failed after rung {trial.reached} of {rungs}",
    }
    rounded = {
        tag: setting_text(value)
        for name, tag in FRACTIONS.items()
        if name in (*trial.searched, *ALWAYS_ROUNDED)
        and (value := getattr(trial.hyperparameters, name)) is not None
    }
    if trial.trainable_parameters is not None:
        rounded[SIZE] = parameters_text(trial.trainable_parameters)
    return (
        rounded
        | _ran_on_tags(trial)
        | {
            METRIC: metric,
            FINALIST_OF: trial.finalist_of,
            OBJECTIVE: objective,
            START: None if trial.start is None else str(trial.start),
            STATE: trial.state,
            ENDED: ends.get(trial.state),
            ERROR: (trial.error or "")[:TAG_LENGTH] or None,
            NOTES: "; ".join(trial.notes)[:TAG_LENGTH] or None,
        }
    )


def _ran_on_tags(trial: TrialRecord) -> dict[str, str]:
    """Where and with what the best evaluation ran; nothing for a trial that has not recorded it."""
    ran = trial.best_ran_on or trial.ran_on
    if ran is None:
        return {}
    values = {
        "node": ran.node,
        "device": ran.gpu or ran.processor or ran.device,
        "precision": ran.precision,
        "versions": ", ".join(f"{name} {version}" for name, version in ran.packages.items()),
    }
    return {RAN_ON[name]: value[:TAG_LENGTH] for name, value in values.items() if value}


def trial_metrics(
    trial: TrialRecord, metric: Metric, objective: Metric | None = None, *, on_part: bool = False
) -> dict[int, dict[str, float]]:
    """Rung → MLflow's metrics of that evaluation, with `score`, the best so far by the sweep's metric.

    Where trials are judged by another objective, the best so far by that is `objective`.

    A value that is missing or not finite is left out, as MLflow would draw it as 0 or as 1.8e308. `RUNG_METRIC`
    comes last.

    Args:
        on_part: it was trained and judged on a part of the rows, so that its score is `part/score`.
    """
    rungs: dict[int, dict[str, float]] = {}
    followed = {BEST_ON_PART if on_part else BEST: metric}
    if objective is not None and objective != metric:
        followed["objective"] = objective
    scores: dict[str, list[float]] = {name: [] for name in followed}
    for evaluation in trial.evaluations:
        numbers = {
            name: float(getattr(evaluation, key))
            for key, name in EVALUATION_METRICS.items()
            if is_finite(getattr(evaluation, key))
        }
        numbers |= {
            f"val_{metric_key(name)}": value for name, value in evaluation.more.items() if is_finite(value)
        }
        for name, by in followed.items():
            value = evaluation.by(by)
            if value is not None and is_finite(value):
                scores[name].append(value)
            if scores[name]:
                numbers[name] = best(scores[name], by)
        system = (evaluation.system or {}).items()
        numbers |= {f"system/{name}": float(value) for name, value in system if is_finite(value)}
        if evaluation.epoch is not None and is_finite(evaluation.epoch):
            numbers[RUNG_METRIC] = evaluation.epoch
        rungs[evaluation.rung] = numbers
    return rungs


def result_metrics(result: SweepResult, trials: Iterable[TrialRecord]) -> dict[str, float]:
    """The sweep's own metrics: `test/*` are the winner's, the others those of what it is compared with.

    `over_start/*` and `over_untuned/*` are the winner's score minus theirs, by the sweep's metric.
    `unmerged/*` are over the classes before labels were merged, `merged_after/*` score the same predictions
    after the merge. MLflow groups charts by the part before the slash.
    """
    numbers = {"system/seconds": result.seconds}
    ranked = rank_trials(trials, result.metric)
    if result.winner:
        numbers |= _named("test/{}", result.winner.test)
        if cut := result.winner.thresholds:
            numbers |= {f"threshold/{metric_key(label)}": value for label, value in cut.values.items()}
            numbers |= _named("threshold/test_{}", cut.test)
        # Named like the trials' own, so that one column sorts both.
        numbers["score"] = result.winner.score
        for name, (low, high) in result.winner.interval.items():
            numbers |= {f"test/{metric_key(name)}_low": low, f"test/{metric_key(name)}_high": high}
    elif ranked and ranked[0].score is not None:
        numbers["score"] = ranked[0].score
    if result.start:
        numbers |= _named("start/test_{}", result.start.test) | {"start/score": result.start.score}
        for name, (low, high) in result.start.interval.items():
            numbers |= {
                f"start/test_{metric_key(name)}_low": low,
                f"start/test_{metric_key(name)}_high": high,
            }
    for name, gain in (("start", result.over_start), ("untuned", result.over_untuned)):
        if gain is not None:
            numbers[f"over_{name}/test_{metric_key(result.metric)}"] = gain.difference
            ends = zip(("low", "high"), gain.interval or (), strict=False)
            numbers |= {f"over_{name}/test_{metric_key(result.metric)}_{end}": value for end, value in ends}
    if result.untuned:
        numbers |= _named("untuned/test_{}", result.untuned.test) | {"untuned/score": result.untuned.score}
    if result.unmerged:
        numbers |= _named("unmerged/test_{}", result.unmerged.test) | {
            "unmerged/score": result.unmerged.score
        }
        numbers |= _named("merged_after/test_{}", result.unmerged.merged)
    for name, test in result.baselines.items():
        # "TF-IDF + logistic regression" → baseline/tf_idf_logistic_regression_accuracy
        key = re.sub(r"\W+", "_", name.lower())
        numbers |= _named(f"baseline/{key}_{{}}", test)
    return {name: value for name, value in numbers.items() if is_finite(value)}


def _named(pattern: str, test: TestScores) -> dict[str, float]:
    return {pattern.format(metric_key(name)): value for name, value in test.values().items()}


def git_tags(summary: Mapping[str, Any]) -> dict[str, str | None]:
    """The commit of the directory that the sweep was started in, as the tags that MLflow reads."""
    git = summary.get("git", {})
    if "commit" not in git:
        return {}
    return {
        "mlflow.source.git.commit": str(git["commit"]),
        "mlflow.source.git.dirty": str(bool(git.get("changed"))).lower(),
    }


def dataset_input(summary: Mapping[str, Any]) -> DatasetInput | None:
    """A sweep's data as an input of its runs; None where the plan's summary does not describe it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = summary.get("data", {})
    if "source" not in data or "fingerprint" not in data:
        return None
    names = [*summary.get("text_columns", ()), summary.get("label_column", "label")]
    columns = [{"name": str(name), "type": "string", "required": True} for name in names]
    source = hide_passwords(str(data["source"]))
    counts = {name: data[name] for name in ("rows", "classes") if name in data}
    dataset = Dataset(
        name=PurePath(source).name[:DATASET_NAME_LENGTH] or source[:DATASET_NAME_LENGTH],
        digest=str(data["fingerprint"])[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": source}, ensure_ascii=False),
        schema=json.dumps({"mlflow_colspec": columns}, ensure_ascii=False),
        profile=json.dumps(counts, ensure_ascii=False)[:PROFILE_LENGTH],
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "train, validation, test")])


def best(scores: Iterable[float], metric: Metric) -> float:
    """The best of some scores."""
    return max(scores) if higher_is_better(metric) else min(scores)


def is_finite(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def milliseconds(seconds: float) -> int:
    """Unix time in MLflow's unit."""
    return int(seconds * 1000)


def params_of(entries: Mapping[str, Any]) -> dict[str, str]:
    """Nested entries as MLflow's params, names joined by dots, passwords hidden."""
    # Two levels, as in the configuration; what is nested deeper, such as rows per class, is one value.
    pairs: list[tuple[str, Any]] = []
    for key, value in entries.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        pairs += [(f"{key}.{name}", entry) for name, entry in inner] or [(key, value)]
    flat: dict[str, str] = {}
    for key, value in pairs:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        # A key may be a regular expression or a label; MLflow allows few characters in names.
        flat[FORBIDDEN.sub("_", key)[:KEY_LENGTH]] = hide_passwords(text)[:PARAM_LENGTH]
    return flat
