"""The winner's threshold: chosen on the validation split, and its test scores with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lorasweep.training.metrics import F1_OF
from lorasweep.training.scores.noise import bootstrap_intervals
from lorasweep.training.scores.outcomes import log_softmax
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.set_thresholds import thresholds_by
from lorasweep.training.scores.thresholds import best_threshold, decide
from lorasweep.training.threshold_rules import DEFAULT_RULE, fixed_threshold
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import read_outcomes
from lorasweep.tuning.record.results import TestScores, Thresholds
from lorasweep.tuning.record.trial_records import TrialRecord

Intervals = dict[str, tuple[float, float]]


def sweep_scorer(config: SweepConfig, label_names: Sequence[str], several: bool = False) -> Scorer:
    """Scores the test split: by metric and objective, all others of the task, and with a threshold by the F1 of the
    positive class, which that is about. Of `several` labels a text, by their thresholds.
    """
    scorer = Scorer.of(label_names, config.training.positive, config.training.metric, config.objective)
    if several:
        return replace(scorer, several=True, rule=config.choice.threshold)
    if config.choice.threshold is None:
        return scorer
    metric = F1_OF.replace("LABEL", scorer.label_names[scorer.positive])
    return replace(scorer, named=tuple(dict.fromkeys((*scorer.named, metric))))


def thresholds(
    rule: str,
    scorer: Scorer,
    logits: np.ndarray,
    labels: np.ndarray,
    validation: Callable[[], tuple[np.ndarray, np.ndarray]],
) -> Thresholds:
    """The positive class's threshold, and the test scores with it.

    Args:
        rule: what it is chosen by, or the number itself.
        logits: of the test rows; float, shape (rows, 2).
        labels: of the test rows; int, shape (rows,).
        validation: makes logits and labels of the validation rows, where it has to be chosen.
    """
    positive = scorer.positive
    value = fixed_threshold(rule)
    if value is None:
        seen, truth = validation()
        value = best_threshold(np.exp(log_softmax(seen))[:, positive], truth == positive, rule)
    values = {scorer.label_names[positive]: value}
    predicted = decide(np.exp(log_softmax(logits)), scorer.label_names, values)
    outcomes = scorer.outcomes(logits, labels, predicted)
    scores = scorer.scores(outcomes)
    test = TestScores(accuracy=scores.accuracy, macro_f1=scores.macro_f1, loss=scores.loss, more=scores.more)
    return Thresholds(
        rule=rule, values=values, test=test, interval=bootstrap_intervals(outcomes, scorer.metrics)
    )


def set_rule(config: SweepConfig) -> str:
    """By what the thresholds of several labels a text are chosen."""
    return config.choice.threshold or DEFAULT_RULE


def set_thresholds(rule: str, scorer: Scorer, test: TestScores, intervals: Intervals) -> Thresholds:
    """The record of thresholds with which several labels a text were scored.

    Args:
        scorer: has them.
        test, intervals: the test scores, which are by them.
    """
    values = dict(zip(scorer.label_names, scorer.thresholds, strict=True))
    return Thresholds(rule=rule, values=values, test=test, interval=intervals)


def trial_thresholds(folder: SweepFolder, trial: TrialRecord, rule: str | None) -> tuple[float, ...] | None:
    """Thresholds of several labels by the validation rows of a trial's best evaluation; None where they are gone."""
    outcomes = read_outcomes(folder.outcomes(trial.id), trial.best_rung)
    if outcomes is None or outcomes.margins is None:
        return None
    return tuple(thresholds_by(rule, outcomes.margins, outcomes.labels).tolist())
