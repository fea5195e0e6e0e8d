"""Saved views of MLflow's table of runs, with the columns that tell trials apart, and links to them.

MLflow 3 keeps a saved view as a tag of the experiment: `mlflow.sharedViewState.KEY` holds its name and, as JSON,
the columns and their order. A page with `viewStateShareKey=KEY` opens it, and the menu "Views" lists it. MLflow
ignores names in it that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.words import METRIC_NAMES
from lorasweep.tuning.tracking.entries import ENDED, KIND, METRIC
from lorasweep.tuning.tracking.store import connect, store_errors

VIEW = "mlflow.sharedViewState."
# Without this, and `MODE` in the address, MLflow opens the page for experiments with language models' answers.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
MODE = "workflowType=machine_learning"
SWEEPS = "sweeps"
SETTINGS = ("rank", "alpha", "target_modules", "learning_rate", "trainable_parameters")
FIRST = ("attributes.`Run Name`", "runDateAndNestInfo", "duration")
# In pixels; together they fit a window of 1400 whose menu is folded.
WIDTHS = {
    **dict(zip(FIRST, (225, 135, 75), strict=True)),
    "metrics.`score`": 85,
    "metrics.`val_loss`": 85,
    "params.`rank`": 60,
    "params.`alpha`": 65,
    "params.`target_modules`": 115,
    "params.`learning_rate`": 105,
    "params.`trainable_parameters`": 110,
    f"tags.`{ENDED}`": 215,
}
# MLflow shows when a view was made. The same moment each time, so that it is written once.
MADE = 1_767_225_600_000


def experiment_tags(metric: Metric) -> dict[str, str]:
    """The tags of an experiment that hold the views for sweeps by this metric."""
    settings = [*_columns("params", SETTINGS), *_columns("tags", (ENDED,))]
    others = [f"val_{other}" for other in METRIC_NAMES if other != metric]
    return EXPERIMENT_TAGS | {
        f"{VIEW}{SWEEPS}": _view(
            "Sweeps",
            [*_columns("metrics", ("score", "test/accuracy", "test/macro_f1")), *settings],
            # MLflow nests trials below their sweep only in this order.
            {"orderByKey": "attributes.start_time", "orderByAsc": False},
        ),
        f"{VIEW}{trials_key(metric)}": _view(
            f"Trials by {METRIC_NAMES[metric]}",
            [*_columns("metrics", ("score", *others)), *settings],
            {
                # The sweeps' own runs have a score, too.
                "searchFilter": f"tags.`{KIND}` = 'trial' and tags.`{METRIC}` = '{metric}'",
                "orderByKey": "metrics.`score`",
                "orderByAsc": not higher_is_better(metric),
            },
        ),
    }


def trials_key(metric: Metric) -> str:
    """The key of the view on all trials of this metric, the best first."""
    return f"trials-{metric}"


def view_page(experiment: str, key: str) -> str:
    """A view's page, relative to MLflow's address."""
    return f"#/experiments/{experiment}/runs?{MODE}&viewStateShareKey={key}"


def run_page(experiment: str, run_id: str) -> str:
    """A run's page, relative to MLflow's address."""
    return f"#/experiments/{experiment}/runs/{run_id}?{MODE}"


def view_links(uri: str, experiment: str, address: str) -> list[tuple[str, str]]:
    """Name and link of each view that an experiment has; none if there is no such experiment yet.

    Args:
        uri: of the store.
        experiment: name of the experiment.
        address: of MLflow's pages on that store.

    Raises:
        SettingsError: the store fails.
    """
    with store_errors(uri):
        entry = connect(uri).get_experiment_by_name(experiment)
    if entry is None:
        return []
    views = {SWEEPS: SWEEPS} | {
        trials_key(metric): f"trials by {name}" for metric, name in METRIC_NAMES.items()
    }
    base = address.rstrip("/")
    return [
        (name, f"{base}/{view_page(entry.experiment_id, key)}")
        for key, name in views.items()
        if VIEW + key in entry.tags
    ]


def _columns(group: str, names: Sequence[str]) -> list[str]:
    return [f"{group}.`{name}`" for name in names]


def _view(name: str, columns: Sequence[str], sorting: dict[str, Any]) -> str:
    # MLflow ignores the width of a column that `columnOrder` does not name.
    state = sorting | {"selectedColumns": columns, "columnOrder": [*FIRST, *columns], "columnWidths": WIDTHS}
    return json.dumps({"name": name, "createdAt": MADE, "updatedAt": MADE, "state": json.dumps(state)})
