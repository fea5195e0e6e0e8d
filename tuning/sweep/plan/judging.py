"""Whether the data have what a sweep is judged by: checked in the plan, before the first trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.errors import DataError, SettingError, shown
from lorasweep.training.metrics import Metric, label_of, misfit
from lorasweep.training.settings import TrainingSettings
from lorasweep.training.threshold_rules import RULES, SET_RULES, fits_sets, fits_two
from lorasweep.tuning.record.config import SweepConfig

# Undefined where all rows are of one class.
BOTH = ("auroc", "average_precision")


def check_judging(config: SweepConfig, dataset: Dataset, splits: Mapping[str, np.ndarray]) -> None:
    """Check metric, objective, positive class and threshold against the labels.

    Args:
        splits: the labels of each split that is scored, by its name.

    Raises:
        SettingError: a metric that the labels do not have, or a positive class that is none.
        DataError: of several labels a text, a split has none.
    """
    check_metric_fits(config.training, dataset)
    for split, labels in splits.items():
        if dataset.multi_label and not labels.any():
            raise DataError(
                f"the {split} split has no text with a label, and cannot be scored; add rows to it, or split otherwise"
            )
    threshold, classes = config.choice.threshold, len(dataset.label_names)
    if threshold is not None and dataset.multi_label and not fits_sets(threshold):
        said = f"of several labels a text thresholds are chosen by {', '.join(SET_RULES)}, or are one number"
        raise SettingError(("choice", "threshold"), said, value=threshold)
    if threshold is not None and not dataset.multi_label and classes != 2:
        said = f"goes with two classes, and the data have {classes}; leave it out"
        raise SettingError(("choice", "threshold"), said, value=threshold)
    if threshold is not None and not dataset.multi_label and not fits_two(threshold):
        said = f"goes with several labels a text, and the data have one; use {', '.join(RULES)}, or a number"
        raise SettingError(("choice", "threshold"), said, value=threshold)
    if problem := misfit(config.objective, dataset.label_names, dataset.multi_label):
        raise SettingError(("search", "objective"), problem, value=config.objective)
    settings = {("training", "metric"): config.training.metric, ("search", "objective"): config.objective}
    for place, metric in settings.items():
        for name in _needed(metric, dataset):
            for split, labels in splits.items():
                number = dataset.label_names.index(name)
                if not (labels[:, number] if dataset.multi_label else labels == number).any():
                    problem = f"the {split} split has no row of {name!r}; use another metric, or add rows"
                    raise SettingError(place, problem, value=metric)


def check_metric_fits(settings: TrainingSettings, dataset: Dataset) -> None:
    """Check metric and positive class against the labels alone. Raises `SettingError`."""
    names, positive = dataset.label_names, settings.positive
    if problem := misfit(settings.metric, names, dataset.multi_label):
        raise SettingError(("training", "metric"), problem, value=settings.metric)
    if positive is None:
        return
    if dataset.multi_label:
        problem = "goes with two classes, and here a text may have several labels; leave it out"
        raise SettingError(("training", "positive"), problem, value=positive)
    if len(names) != 2:
        problem = f"goes with two classes, and the data have {len(names)}; leave it out"
        raise SettingError(("training", "positive"), problem, value=positive)
    if positive not in names:
        problem = f"no class has this name; the labels are {shown(names)}"
        raise SettingError(("training", "positive"), problem, value=positive)


def _needed(metric: Metric, dataset: Dataset) -> Iterator[str]:
    """Labels without which the metric is undefined or always 0."""
    if (label := label_of(metric)) is not None:
        yield label
    if metric in BOTH and not dataset.multi_label:
        yield from dataset.label_names
