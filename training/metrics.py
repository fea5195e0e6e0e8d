"""The table of metrics: the place to add one. It imports nothing heavy, as the command line reads it.

A metric is an entry of `METRICS` and its function in `training/scores/metrics.py`. What a setting may name, what is
recorded, the words and formats of every table and page, and the table in `docs/search.md` come from the entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator

from lorasweep.training.errors import shown

# What a data set asks for, by which metrics differ.
Task = Literal["two classes", "more classes", "several labels"]
Unit = Literal["share", "nats", "number"]
EVERY: tuple[Task, ...] = ("two classes", "more classes", "several labels")
TWO: tuple[Task, ...] = ("two classes",)
SETS: tuple[Task, ...] = ("several labels",)
ONE: tuple[Task, ...] = ("two classes", "more classes")
# Names that hold a number or a label.
TOP, F1_OF = "top_K", "f1:LABEL"
_TOP = re.compile(r"top_([1-9]\d{0,3})")
_F1_OF = re.compile(r"f1:(.+)", re.DOTALL)


@dataclass(frozen=True)
class MetricEntry:
    """One metric.

    Attributes:
        words: its name in tables and sentences.
        about: what it is, for the documentation.
        higher: whether a higher value is the better one.
        unit: a share is shown in per cent and differs by points; nats and bare numbers are shown as they are.
        tasks: where it is defined.
    """

    words: str
    about: str
    higher: bool = True
    unit: Unit = "share"
    tasks: tuple[Task, ...] = EVERY


METRICS: dict[str, MetricEntry] = {
    "accuracy": MetricEntry(
        "accuracy",
        "share of rows whose label is predicted; of several labels a text, exactly these",
    ),
    "macro_f1": MetricEntry("macro-F1", "mean F1 of the classes, each counting the same"),
    "loss": MetricEntry(
        "loss",
        "mean cross entropy in nats; of several labels the binary one, mean over them",
        higher=False,
        unit="nats",
    ),
    "balanced_accuracy": MetricEntry("balanced accuracy", "mean recall of the classes", tasks=ONE),
    "weighted_f1": MetricEntry("weighted F1", "mean F1 of the classes, weighted by their rows"),
    "mcc": MetricEntry(
        "MCC", "Matthews correlation of labels and predictions, from -1 to 1", unit="number", tasks=ONE
    ),
    "micro_f1": MetricEntry("micro-F1", "F1 over all texts and labels together", tasks=SETS),
    "subset_accuracy": MetricEntry(
        "subset accuracy", "share of texts of which exactly their labels are predicted", tasks=SETS
    ),
    "hamming_loss": MetricEntry(
        "Hamming loss", "share of all texts and labels that are predicted wrongly", higher=False, tasks=SETS
    ),
    TOP: MetricEntry(
        "top-K accuracy",
        "share of rows whose label is among the K most probable, such as `top_3`",
        tasks=("more classes",),
    ),
    F1_OF: MetricEntry("F1 of LABEL", "F1 of one class, such as `f1:POLITICS`"),
    "auroc": MetricEntry(
        "AUROC",
        "probability that a positive row gets a higher score than another one",
        unit="number",
        tasks=TWO,
    ),
    "average_precision": MetricEntry(
        "average precision",
        "mean precision over the thresholds, weighted by the recall they add; of several labels "
        "the mean over them",
        unit="number",
        tasks=TWO + SETS,
    ),
    "brier": MetricEntry(
        "Brier score",
        "mean squared error of the positive class's probability",
        higher=False,
        unit="number",
        tasks=TWO,
    ),
}
ALWAYS = ("accuracy", "macro_f1", "loss")
"""Those that every evaluation has, and every record since the first version."""


def check_metric(name: str) -> str:
    """A metric's name. Raises `ValueError` for one that is none."""
    if name in METRICS and name not in (TOP, F1_OF):
        return name
    if _TOP.fullmatch(name) or _F1_OF.fullmatch(name):
        return name
    raise ValueError(
        f"use {', '.join(METRICS)}, where K is a number such as top_3 and LABEL a label of the data"
    )


Metric = Annotated[str, AfterValidator(check_metric)]
"""A metric's name: a key of `METRICS`, or one made from `top_K` or `f1:LABEL`."""


def entry_of(metric: str) -> MetricEntry:
    """The metric's entry, with number or label in its words.

    Example:
        >>> entry_of("top_3").words
        'top-3 accuracy'
    """
    if (label := label_of(metric)) is not None:
        return replace(METRICS[F1_OF], words=f"F1 of {label}")
    if (most := most_of(metric)) is not None:
        return replace(METRICS[TOP], words=f"top-{most} accuracy")
    return METRICS[metric]


def label_of(metric: str) -> str | None:
    """The label of `f1:LABEL`; None for any other metric."""
    found = _F1_OF.fullmatch(metric)
    return found[1] if found else None


def most_of(metric: str) -> int | None:
    """The number of `top_K`; None for any other metric."""
    found = _TOP.fullmatch(metric)
    return int(found[1]) if found else None


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of the metric is the better one."""
    return entry_of(metric).higher


def metric_words(metric: str) -> str:
    """The metric's name in tables and sentences."""
    return entry_of(metric).words


def unit_of(metric: str) -> Unit:
    """How the metric is shown; see `MetricEntry`."""
    return entry_of(metric).unit


def misfit(metric: str, label_names: Sequence[str], several: bool = False) -> str | None:
    """Why a metric cannot be made of these labels, and what to do; None where it can.

    Args:
        several: a text may have several of them.
    """
    entry, classes = entry_of(metric), len(label_names)
    label, most = label_of(metric), most_of(metric)
    if label is not None and label not in label_names:
        return f"no class has this name; the labels are {shown(label_names, 30)}"
    task = task_of(classes, several)
    if task not in entry.tasks and (several or entry.tasks == SETS):
        kinds = ("one label a text", "several") if several else ("several labels a text", "one")
        return f"{entry.words} is for {kinds[0]}, and the data have {kinds[1]}; use another, such as macro_f1"
    if most is not None and most >= classes:
        return f"of {classes} classes, every row would count as right; use {_smaller(classes)}"
    if task not in entry.tasks:
        return f"{entry.words} is for two classes, and the data have {classes}; use another, such as macro_f1"
    return None


def _smaller(classes: int) -> str:
    return f"top_{classes - 1}, or a smaller number" if classes > 2 else "another, such as auroc"


def metric_key(metric: str) -> str:
    """A metric's name as MLflow takes it: of `f1:LABEL`, a label may have any characters."""
    return re.sub(r"[^\w.\- ]", "_", metric)[:200]


def task_of(classes: int, several: bool = False) -> Task:
    """The task of a data set with so many classes; `several` says that a text may have more than one."""
    if several:
        return "several labels"
    return "two classes" if classes == 2 else "more classes"


def recorded(task: Task, named: Iterable[str] = ()) -> tuple[str, ...]:
    """The metrics of every evaluation beside those of `ALWAYS`: all of the task, and further ones by name.

    Args:
        named: those that a sweep is judged by; only they bring `top_K` and `f1:LABEL`.
    """
    own = (name for name, entry in METRICS.items() if task in entry.tasks and name not in (TOP, F1_OF))
    return tuple(name for name in dict.fromkeys([*own, *named]) if name not in ALWAYS)
