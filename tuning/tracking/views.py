"""Saved views of MLflow's table of runs, with the columns that tell trials apart, and links to them.

MLflow 3 keeps a saved view as a tag of the experiment: `mlflow.sharedViewState.KEY` holds its name and, as JSON,
the columns and their order. A page with `viewStateShareKey=KEY` opens it, and the menu "Views" lists it. MLflow
ignores names in it that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lorasweep.training.metrics import ALWAYS, Metric, higher_is_better, metric_key, metric_words
from lorasweep.tuning.tracking.entries import (
    BEST_ON_PART,
    ENDED,
    FRACTIONS,
    KIND,
    METRIC,
    SIZE,
    SWEEP,
)
from lorasweep.tuning.tracking.store import connect, store_errors

VIEW = "mlflow.sharedViewState."
# Without this, and `MODE` in the address, MLflow opens the page for experiments with language models' answers.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
MODE = "workflowType=machine_learning"
SWEEPS, TRIALS = "sweeps", "trials-"
SETTINGS = ("rank", "alpha", "target_modules", "learning_rate")
FIRST = ("attributes.`Run Name`", "runDateAndNestInfo", "duration")
# In pixels; the columns of a view fit a window of 1600 whose menu is folded.
WIDTHS = {
    **dict(zip(FIRST, (265, 125, 75), strict=True)),
    "metrics.`score`": 85,
    "metrics.`val_loss`": 85,
    "params.`rank`": 60,
    "params.`target_modules`": 115,
    "tags.`alpha`": 60,
    "tags.`rate`": 65,
    f"tags.`{SIZE}`": 75,
    f"tags.`{SWEEP}`": 125,
    f"tags.`{ENDED}`": 215,
}
# MLflow shows when a view was made. The same moment each time, so that it is written once.
MADE = 1_767_225_600_000


def experiment_tags(metric: Metric) -> dict[str, str]:
    """The tags of an experiment that hold the views for sweeps by this metric."""
    ends = _columns("tags", (SIZE, ENDED))
    return EXPERIMENT_TAGS | {
        f"{VIEW}{SWEEPS}": _view(
            "Sweeps",
            [*_columns("metrics", ("score", "test/accuracy", "test/macro_f1")), *_settings(SETTINGS), *ends],
            # MLflow nests trials below their sweep only in this order.
            {"orderByKey": "attributes.start_time", "orderByAsc": False},
        ),
        f"{VIEW}{trials_key(metric)}": _view(
            f"Trials by {metric_words(metric)}",
            [*_scores(metric), *_settings(SETTINGS), *_columns("tags", (SWEEP,)), *ends],
            # The sweeps' own runs have a score, too.
            _best_first(metric, f"tags.`{METRIC}` = {_literal(metric)}"),
        ),
    }


def sweep_view(
    sweep: str, metric: Metric, searched: Sequence[str], *, on_part: bool = False
) -> dict[str, str]:
    """The tag of an experiment that holds the view of one sweep: its trials, and what varied between them.

    Args:
        searched: names of the hyperparameters that its space varies.
        on_part: it searches on a part of the rows, so that its trials but for the finalists have another score.
    """
    scores = [*_scores(metric), *_columns("metrics", (BEST_ON_PART,) * on_part)]
    columns = [*scores, *_settings(searched or SETTINGS), *_columns("tags", (SIZE, ENDED))]
    view = _view(sweep, columns, _best_first(metric, f"tags.`{SWEEP}` = '{sweep}'"))
    return {f"{VIEW}{sweep_key(sweep)}": view}


def trials_key(metric: Metric) -> str:
    """The key of the view on all trials of this metric, the best first."""
    return f"{TRIALS}{metric_key(metric)}"


def sweep_key(sweep: str) -> str:
    """The key of the view on one sweep's trials, the best first."""
    return f"sweep-{sweep}"


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
    base, keys = address.rstrip("/"), [SWEEPS] if VIEW + SWEEPS in entry.tags else []
    keys += sorted(tag.removeprefix(VIEW) for tag in entry.tags if tag.startswith(VIEW + TRIALS))
    names = {key: str(json.loads(entry.tags[VIEW + key])["name"]) for key in keys}
    return [
        (name[:1].lower() + name[1:], f"{base}/{view_page(entry.experiment_id, key)}")
        for key, name in names.items()
    ]


def _literal(text: str) -> str:
    """A text in a filter of MLflow's."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def _columns(group: str, names: Sequence[str]) -> list[str]:
    return [f"{group}.`{name}`" for name in names]


def _settings(names: Sequence[str]) -> list[str]:
    # A param shows a learning rate with all its 17 digits: of fractions, the rounded tag is shown.
    whole = [name for name in names if name not in FRACTIONS]
    return _columns("params", whole) + _columns("tags", [FRACTIONS[n] for n in names if n in FRACTIONS])


def _scores(metric: Metric) -> list[str]:
    return _columns("metrics", ("score", *(f"val_{other}" for other in ALWAYS if other != metric)))


def _best_first(metric: Metric, condition: str) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.`{KIND}` = 'trial' and {condition}",
        "orderByKey": "metrics.`score`",
        "orderByAsc": not higher_is_better(metric),
    }


def _view(name: str, columns: Sequence[str], sorting: dict[str, Any]) -> str:
    # MLflow ignores the width of a column that `columnOrder` does not name.
    order = [*FIRST, *columns]
    widths = {column: WIDTHS[column] for column in order if column in WIDTHS}
    state = sorting | {"selectedColumns": columns, "columnOrder": order, "columnWidths": widths}
    return json.dumps({"name": name, "createdAt": MADE, "updatedAt": MADE, "state": json.dumps(state)})
