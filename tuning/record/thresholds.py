"""The positive label and the thresholds that a trial's exported folder gets."""

from __future__ import annotations

from collections.abc import Sequence

from lorasweep.training.threshold_rules import fixed_threshold
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord


def positive_label(config: SweepConfig, label_names: Sequence[str]) -> str | None:
    """The positive one of two labels; None of more."""
    return (config.training.positive or label_names[1]) if len(label_names) == 2 else None


def thresholds_of(sweep: SweepRecord, record: TrialRecord, label_names: Sequence[str]) -> dict[str, float]:
    """Thresholds of a trial's labels: those chosen for the winner, or for any trial a number that was given."""
    if sweep.winner is not None and sweep.winner.id == record.id and sweep.winner.thresholds is not None:
        return sweep.winner.thresholds.values
    positive = positive_label(sweep.config, label_names)
    value = fixed_threshold(sweep.config.choice.threshold)
    return {positive: value} if positive is not None and value is not None else {}
