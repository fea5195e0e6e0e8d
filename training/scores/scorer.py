"""How the predictions of a sweep are scored: by which metrics, and what they need to know of the labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lorasweep.training.data.labels import several
from lorasweep.training.metrics import ALWAYS, recorded, task_of
from lorasweep.training.scores.metrics import measure
from lorasweep.training.scores.outcomes import Outcomes, all_outcomes
from lorasweep.training.scores.set_thresholds import predict_sets, thresholds_by


@dataclass(frozen=True)
class Scores:
    """Scores of one split.

    Attributes:
        accuracy, macro_f1: in [0, 1].
        loss: mean cross entropy in nats.
        more: further scores by their metric's name; without those that the rows do not define.
    """

    accuracy: float
    macro_f1: float
    loss: float
    more: dict[str, float] = field(default_factory=dict)

    def by(self, metric: str) -> float:
        """The score of this name. Raises `KeyError` for one that was not made."""
        return float(getattr(self, metric) if metric in ALWAYS else self.more[metric])


@dataclass(frozen=True)
class Scorer:
    """Scores predictions by every metric of their task, and by those that are named.

    Attributes:
        label_names: in the order of the logits; empty for the metrics of `ALWAYS` alone.
        positive: number of the positive class, of two.
        named: metrics that the sweep is judged by.
        several: whether a text has several labels.
        rule: by which their thresholds are chosen on the rows that are scored; see `set_thresholds.thresholds_by`.
        thresholds: of the labels, chosen before; one for each, or empty.
    """

    label_names: tuple[str, ...]
    positive: int = 1
    named: tuple[str, ...] = ()
    several: bool = False
    rule: str | None = None
    thresholds: tuple[float, ...] = ()

    @classmethod
    def of(cls, label_names: Sequence[str], positive: str | None = None, *named: str) -> Scorer:
        """A scorer of labels.

        Args:
            positive: the positive one of two; the second if None.
            named: metrics that the sweep is judged by.
        """
        names = tuple(label_names)
        number = names.index(positive) if positive in names else 1
        return cls(names, number, tuple(dict.fromkeys(named)))

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that are scored."""
        if not self.label_names:
            return ALWAYS
        return (*ALWAYS, *recorded(task_of(len(self.label_names), self.several), self.named))

    def outcomes(
        self, logits: np.ndarray, labels: np.ndarray, predicted: np.ndarray | None = None
    ) -> Outcomes:
        """What became of each row.

        Args:
            logits: float, shape (rows, classes).
            labels: int, shape (rows,).
            predicted: int, shape (rows,), where it is not the most probable class.
        """
        if several(labels) and predicted is None:
            thresholds = self.thresholds or thresholds_by(self.rule, logits, labels)
            predicted = predict_sets(logits, np.asarray(thresholds))
        return all_outcomes(logits, labels, self.label_names, self.positive, predicted)

    def choose(self, logits: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        """The thresholds that the rule gives on these rows; empty for one label a text."""
        return tuple(thresholds_by(self.rule, logits, labels).tolist()) if several(labels) else ()

    def fixed(self, thresholds: Iterable[float]) -> Scorer:
        """The same with thresholds that were chosen before, on other rows; itself without any."""
        return replace(self, thresholds=tuple(map(float, thresholds)))

    def score(self, logits: np.ndarray, labels: np.ndarray) -> Scores:
        """The scores of predictions: logits of shape (rows, classes), int labels of shape (rows,)."""
        return self.scores(self.outcomes(logits, labels))

    def scores(self, outcomes: Outcomes) -> Scores:
        """The scores of outcomes."""
        metrics = replace(self, several=True).metrics if several(outcomes.labels) else self.metrics
        values = {metric: measure(outcomes, metric).value() for metric in metrics}
        own = {metric: values.pop(metric) for metric in ALWAYS}
        return Scores(**own, more={name: value for name, value in values.items() if np.isfinite(value)})
