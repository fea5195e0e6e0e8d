"""A sweep's records in MLflow's terms: params, metrics, tags. Nothing here speaks to a store."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepResult, TrialRecord
from lorasweep.tuning.tracking.store import hide_passwords

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

SWEEP, KIND, TRIAL, STATE, METRIC = (
    f"lorasweep.{name}" for name in ("sweep", "kind", "trial", "state", "metric")
)
ENDED, ERROR, NOTES, WINNER = (f"lorasweep.{name}" for name in ("ended", "error", "notes", "winner"))
# What only this program reads: MLflow's pages hide the tags that begin like its own.
ID, ADAPTER, REPORT, NOTE_VERSION = (
    f"mlflow.lorasweep.{name}" for name in ("id", "adapter", "report", "note")
)

# MLflow refuses more characters than these.
KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
DATASET_NAME_LENGTH, PROFILE_LENGTH = 500, 16_000
# It takes 36, but shows them in each row of the table; the whole fingerprint is among the params.
DIGEST_LENGTH = 10
FORBIDDEN = re.compile(r"[^\w.\- ]")

# MLflow has two pages of charts: how good the model is, and, for what begins with `system/`, how the run went.
EVALUATION_METRICS = {
    "accuracy": "val_accuracy",
    "macro_f1": "val_macro_f1",
    "loss": "val_loss",
    "train_loss": "train_loss",
    "learning_rate": "system/learning_rate",
    "epoch": "system/epoch",
    "seconds": "system/seconds",
    "samples_per_second": "system/samples_per_second",
}

# MLflow has no status for a run that was stopped early on purpose. FAILED and KILLED would paint a trial red
# that did what it should, so it is FINISHED, and the tags say how.
TRIAL_STATUS = {"running": "RUNNING", "completed": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
SWEEP_STATUS = {"running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


def sweep_params(config: SweepConfig, summary: Mapping[str, Any]) -> dict[str, str]:
    """The resolved configuration, nested names joined by dots, and whatever else is known of the sweep."""
    # What is not set is left out: among a hundred params it would only be in the way.
    return params_of(summary) | params_of(config.model_dump(mode="json", exclude_none=True))


def trial_params(trial: TrialRecord) -> dict[str, str]:
    """All hyperparameters of a trial, searched or not, and the size of what it trains once that is known."""
    entries = trial.hyperparameters.model_dump()
    if trial.trainable_parameters is not None:
        entries["trainable_parameters"] = trial.trainable_parameters
    return params_of(entries)


def trial_tags(trial: TrialRecord, rungs: int, stopping: str) -> dict[str, str]:
    """How a trial stands.

    Args:
        rungs: evaluations of a full trial.
        stopping: label of the sweep's stopping rule.
    """
    tags: dict[str, str] = {STATE: trial.state}
    if trial.state == "completed":
        tags[ENDED] = f"completed {rungs} rungs"
    elif trial.state == "stopped":
        tags[ENDED] = f"stopped by {stopping} at rung {trial.reached} of {rungs}"
    elif trial.state == "failed":
        tags[ENDED] = f"failed after rung {trial.reached} of {rungs}"
    if trial.error:
        tags[ERROR] = trial.error[:TAG_LENGTH]
    if trial.notes:
        tags[NOTES] = "; ".join(trial.notes)[:TAG_LENGTH]
    return tags


def trial_metrics(trial: TrialRecord, metric: Metric) -> dict[int, dict[str, float]]:
    """Rung → MLflow's metrics of that evaluation, with `score`, the best one up to it by the sweep's metric.

    A value that is missing or not finite is left out: MLflow would draw it as 0 or as 1.8e308.
    """
    rungs: dict[int, dict[str, float]] = {}
    scores: list[float] = []
    for evaluation in trial.evaluations:
        numbers = {
            name: float(getattr(evaluation, key))
            for key, name in EVALUATION_METRICS.items()
            if is_finite(getattr(evaluation, key))
        }
        value = evaluation.by(metric)
        if value is not None and is_finite(value):
            scores.append(value)
        if scores:
            numbers["score"] = best(scores, metric)
        system = (evaluation.system or {}).items()
        numbers |= {f"system/{name}": float(value) for name, value in system if is_finite(value)}
        rungs[evaluation.rung] = numbers
    return rungs


def result_metrics(result: SweepResult, trials: Iterable[TrialRecord]) -> dict[str, float]:
    """The sweep's own metrics; `test/*` are the winner's, the others those of what it is compared with.

    `unmerged/*` are over the classes before labels were merged, `merged_after/*` the same predictions merged.
    MLflow draws the charts of what stands before a slash as one group.
    """
    numbers = {"system/seconds": result.seconds}
    scores = [trial.score for trial in trials if trial.score is not None]
    if result.winner:
        numbers |= {f"test/{name}": value for name, value in result.winner.test.model_dump().items()}
        # Named as the trials' own, so that one column sorts both.
        numbers["score"] = result.winner.score
        for name, (low, high) in result.winner.interval.items():
            numbers |= {f"test/{name}_low": low, f"test/{name}_high": high}
    elif scores:
        numbers["score"] = best(scores, result.metric)
    if result.untuned:
        numbers |= {f"untuned/test_{name}": value for name, value in result.untuned.test.model_dump().items()}
        numbers["untuned/score"] = result.untuned.score
    if result.unmerged:
        numbers |= {
            f"unmerged/test_{name}": value for name, value in result.unmerged.test.model_dump().items()
        }
        merged = result.unmerged.merged.model_dump()
        numbers |= {f"merged_after/test_{name}": value for name, value in merged.items()}
        numbers["unmerged/score"] = result.unmerged.score
    for name, test in result.baselines.items():
        # "TF-IDF + logistic regression" → baseline/tf_idf_logistic_regression_accuracy
        key = re.sub(r"\W+", "_", name.lower())
        numbers |= {f"baseline/{key}_{score}": value for score, value in test.model_dump().items()}
    return {name: value for name, value in numbers.items() if is_finite(value)}


def git_tags(summary: Mapping[str, Any]) -> dict[str, str | None]:
    """The commit of the directory that the sweep was started in, under the names that MLflow knows it by."""
    git = summary.get("git", {})
    if "commit" not in git:
        return {}
    return {
        "mlflow.source.git.commit": str(git["commit"]),
        "mlflow.source.git.dirty": str(bool(git.get("changed"))).lower(),
    }


def dataset_input(summary: Mapping[str, Any]) -> DatasetInput | None:
    """A sweep's data as MLflow notes where a run's data came from; None where the summary tells nothing of it.

    Args:
        summary: as `SweepPlan.summary` gives it.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = summary.get("data", {})
    if "source" not in data or "fingerprint" not in data:
        return None
    names = [*summary.get("text_columns", ()), summary.get("label_column", "label")]
    columns = [{"name": str(name), "type": "string", "required": True} for name in names]
    source = hide_passwords(str(data["source"]))
    kept = {name: data[name] for name in ("rows", "classes") if name in data}
    dataset = Dataset(
        name=PurePath(source).name[:DATASET_NAME_LENGTH] or source[:DATASET_NAME_LENGTH],
        digest=str(data["fingerprint"])[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": source}, ensure_ascii=False),
        schema=json.dumps({"mlflow_colspec": columns}, ensure_ascii=False),
        profile=json.dumps(kept, ensure_ascii=False)[:PROFILE_LENGTH],
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "train, validation, test")])


def best(scores: Iterable[float], metric: Metric) -> float:
    """The best of some scores."""
    return max(scores) if higher_is_better(metric) else min(scores)


def is_finite(value: object) -> bool:
    """Whether this is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def milliseconds(seconds: float) -> int:
    """Unix time as MLflow counts it."""
    return int(seconds * 1000)


def params_of(entries: Mapping[str, Any]) -> dict[str, str]:
    """Nested entries as MLflow's params, names joined by dots, passwords hidden."""
    # Two levels, as the configuration has; what lies deeper, such as rows a class, is one value.
    pairs: list[tuple[str, Any]] = []
    for key, value in entries.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        pairs += [(f"{key}.{name}", entry) for name, entry in inner] or [(key, value)]
    flat: dict[str, str] = {}
    for key, value in pairs:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        # A key may be a regular expression or a label, and MLflow allows few characters in names.
        flat[FORBIDDEN.sub("_", key)[:KEY_LENGTH]] = hide_passwords(text)[:PARAM_LENGTH]
    return flat
