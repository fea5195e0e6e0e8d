"""How MLflow's table of runs opens: saved views with the columns that tell trials apart, and links to them.

MLflow 3 keeps a saved view as a tag of the experiment: `mlflow.sharedViewState.KEY` holds its name and, as JSON,
which columns are shown and how the runs are sorted; a page with `viewStateShareKey=KEY` opens so, and the menu
"Views" lists it. An MLflow that does not know a name in it leaves that name out.
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
# Without this, and `MODE` in the address, MLflow takes the experiment for one about language models' answers,
# and opens another page.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
MODE = "workflowType=machine_learning"
SWEEPS = "sweeps"
SETTINGS = ("rank", "alpha", "target_modules", "learning_rate", "trainable_parameters")
FIRST = ("attributes.`Run Name`", "runDateAndNestInfo", "duration")
# In pixels, so that a page of 1400 shows them all once its menu is folded.
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
# MLflow shows when a view was made; the same moment each time, so that it is written once.
MADE = 1_767_225_600_000


def experiment_tags(metric: Metric) -> dict[str, str]:
    """Tags of an experiment that give it the views that sweeps by this metric need."""
    return EXPERIMENT_TAGS | {
        f"{VIEW}{SWEEPS}": _view(
            "Sweeps",
            [*_columns("metrics", ("score", "test/accuracy", "test/macro_f1")), *_setting_columns()],
            # Runs are nested only while they are sorted by their start.
            {"orderByKey": "attributes.start_time", "orderByAsc": False},
        ),
        f"{VIEW}{trials_key(metric)}": _view(
            f"Trials by {METRIC_NAMES[metric]}",
            [*_columns("metrics", ("score", *_other_metrics(metric))), *_setting_columns()],
            {
                # The sweeps' own runs have a score, too, and would stand among their trials.
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
    """Where a view is, from MLflow's own address on."""
    return f"#/experiments/{experiment}/runs?{MODE}&viewStateShareKey={key}"


def run_page(experiment: str, run_id: str) -> str:
    """Where a run is, from MLflow's own address on."""
    return f"#/experiments/{experiment}/runs/{run_id}?{MODE}"


def view_links(uri: str, experiment: str, address: str) -> list[tuple[str, str]]:
    """Name and link of each view that an experiment has; none if there is no such experiment yet.

    Args:
        uri: of the store.
        experiment: its name.
        address: where MLflow's interface on that store is.

    Raises:
        SettingsError: the store fails.
    """
    with store_errors(uri):
        found = connect(uri).get_experiment_by_name(experiment)
    if found is None:
        return []
    views = {SWEEPS: SWEEPS} | {
        trials_key(metric): f"trials by {METRIC_NAMES[metric]}" for metric in METRIC_NAMES
    }
    base = address.rstrip("/")
    return [
        (name, f"{base}/{view_page(found.experiment_id, key)}")
        for key, name in views.items()
        if VIEW + key in found.tags
    ]


def _other_metrics(metric: Metric) -> list[str]:
    # The score is the best of its own metric already.
    return [f"val_{other}" for other in METRIC_NAMES if other != metric]


def _setting_columns() -> list[str]:
    return [*_columns("params", SETTINGS), *_columns("tags", (ENDED,))]


def _columns(group: str, names: Sequence[str]) -> list[str]:
    return [f"{group}.`{name}`" for name in names]


def _view(name: str, columns: Sequence[str], sorting: dict[str, Any]) -> str:
    # MLflow takes the widths of those columns alone whose order it is told.
    state = sorting | {
        "selectedColumns": columns,
        "columnOrder": [*FIRST, *columns],
        "columnWidths": WIDTHS,
    }
    return json.dumps({"name": name, "createdAt": MADE, "updatedAt": MADE, "state": json.dumps(state)})
