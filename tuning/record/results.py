"""JSON records of how a sweep ended: its winner, and what that is compared with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lorasweep.training.metrics import Metric
from lorasweep.tuning.record.scores import TestScores as TestScores
from lorasweep.tuning.record.scores import Thresholds as Thresholds
from lorasweep.tuning.record.trial_records import Record, RecordedHyperparameters, TrialId

SweepState = Literal["running", "finished", "interrupted", "failed"]


class Winner(Record):
    """The chosen trial and its scores on the test split.

    Attributes:
        test: by the most probable class.
        thresholds: those of `--threshold`, with the test scores that they give.
        score: its best evaluation in the search, by the sweep's metric.
        rung: of that evaluation, whose weights were scored; None in results of older versions.
        interval: 95 % bootstrap interval of each test score, (low, high).
        rule: how it was chosen, in words.
    """

    id: TrialId
    score: float
    rung: int | None = None
    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    test: TestScores
    interval: dict[str, tuple[float, float]] = Field(default_factory=dict)
    thresholds: Thresholds | None = None
    rule: str = ""


class Confirmed(Record):
    """A trial's hyperparameters retrained on other seeds.

    Attributes:
        scores: seed → validation score. The search's own score is left out: it was selected for being high.
        mean: of the scores.
        spread: their standard deviation (n - 1), 0 for a single one.
    """

    id: TrialId
    scores: dict[str, float]
    mean: float
    spread: float


class Reference(Record):
    """The untuned default hyperparameters, trained with the same budget."""

    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    score: float
    test: TestScores
    seconds: float


class StartReference(Record):
    """The known-good start: the first settings that the sweep tried, trained to the end and scored like the winner.

    Attributes:
        id: of its trial; the winner's where the search found nothing better.
        rung: of the evaluation whose weights were scored; None in results of older versions.
        score: its best evaluation, by the sweep's metric.
        interval: 95 % bootstrap interval of each test score, (low, high).
    """

    id: TrialId
    rung: int | None = None
    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    score: float
    test: TestScores
    interval: dict[str, tuple[float, float]] = Field(default_factory=dict)


class Gain(Record):
    """What the winner's test score has over another's, by the sweep's metric, on the same rows.

    Attributes:
        difference: winner minus the other; in the metric's unit (a share, or nats for the loss).
        interval: 95 % interval of the difference by a paired bootstrap over the test rows, (low, high).
    """

    difference: float
    interval: tuple[float, float] | None = None


class UnmergedReference(Record):
    """The winner's hyperparameters trained on the labels before merging.

    Attributes:
        classes: number of labels before merging.
        score: best evaluation on the validation split, over these classes.
        test: scores over these classes.
        merged: scores of the same predictions mapped to the merged labels; comparable with the winner's.
    """

    hyperparameters: RecordedHyperparameters = Field(alias="settings")
    classes: int
    score: float
    test: TestScores
    merged: TestScores
    seconds: float


class RegisteredVersion(Record):
    """The winner in MLflow's registry.

    Attributes:
        alias: `champion` or `challenger`, as decided on registration.
        reason: why, with both scores.
    """

    name: str
    version: str
    alias: str
    reason: str


class SweepResult(Record):
    """How a sweep ended.

    Attributes:
        seconds: wall time, summed over its runs.
        stopped_by: why no trial followed before their number was reached: `time` or `patience`.
        start: the known-good start; None where the space has none.
        over_start, over_untuned: what the winner adds to the start, and to the untuned settings.
        near: ids of the trials whose validation score is within noise of the winner's.
        unmerged: the winner's hyperparameters on the labels before merging, if labels were merged.
        baselines: name → test scores of models without a neural network.
        confirmed: the best trials on other seeds, best mean first.
        choices: rule → the trial that would have won by it.
        latency_ms: base model → milliseconds to predict one text, where trials chose among several.
        also_tested: earlier winners, from before the sweep was extended, with their test scores.
        missing: steps after the trials that failed → why. `resume` tries them again.
        published: MLflow's copy is complete.
        registered: the winner's version in the model registry.
    """

    state: SweepState
    metric: Metric
    seconds: float = 0.0
    stopped_by: Literal["time", "patience"] | None = None
    winner: Winner | None = None
    start: StartReference | None = None
    over_start: Gain | None = None
    over_untuned: Gain | None = None
    near: tuple[TrialId, ...] = ()
    untuned: Reference | None = None
    unmerged: UnmergedReference | None = None
    baselines: dict[str, TestScores] = Field(default_factory=dict)
    confirmed: tuple[Confirmed, ...] = ()
    choices: dict[str, str] = Field(default_factory=dict)
    latency_ms: dict[str, float] = Field(default_factory=dict)
    also_tested: tuple[Winner, ...] = ()
    missing: dict[str, str] = Field(default_factory=dict)
    published: bool = False
    registered: RegisteredVersion | None = None
    error: str | None = None
