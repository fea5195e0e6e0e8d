"""Hyperparameters, scores, counts and times as text, for every table and page."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorasweep.search_spaces.domains import show
from lorasweep.search_spaces.fields import short_names
from lorasweep.training.metrics import ALWAYS, Metric, entry_of, label_of, metric_words, unit_of
from lorasweep.training.settings import Hyperparameters
from lorasweep.training.threshold_rules import BETAS, NONE, fixed_threshold
from lorasweep.tuning.record.finalists import finalists, searched_trials
from lorasweep.tuning.record.results import SweepResult, TestScores, Thresholds
from lorasweep.tuning.record.trial_records import TrialRecord, TrialState

SHORT_NAMES = short_names()
# Characters with a meaning in Markdown or in the HTML inside it.
# Thresholds that are shown one by one.
MOST_THRESHOLDS = 3
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")


def setting_text(value: Any) -> str:
    """One value, rounded for reading: 0.00216 as 2.2e-3, 0.123457 as 0.1235."""
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name  # a base model's folder
    return f"{value:.4g}" if isinstance(value, float) and 0.01 <= abs(value) < 1000 else show(value)


def settings_line(hyperparameters: Hyperparameters, searched: Sequence[str]) -> str:
    """A trial's searched hyperparameters on one line."""
    return ", ".join(
        f"{SHORT_NAMES.get(name, name)} {setting_text(getattr(hyperparameters, name))}" for name in searched
    )


def score_text(score: float | None, metric: Metric) -> str:
    """A share in per cent, any other score with four digits."""
    if score is None or math.isnan(score):
        return "-"
    return f"{score:.1%}" if unit_of(metric) == "share" else f"{score:.4f}"


def amount_text(value: float, metric: Metric) -> str:
    """A difference or an error of scores: 1.2 points, 0.034 nats, or 0.034."""
    unit = unit_of(metric)
    return f"{100 * value:.1f} points" if unit == "share" else f"{value:.4f}{' nats' * (unit == 'nats')}"


def threshold_rule(rule: str) -> str:
    """How a threshold is chosen, in words."""
    if (number := fixed_threshold(rule)) is not None:
        return f"{number:g}, as given"
    if rule == NONE:
        return "one half"
    if rule in BETAS:
        return f"the best {rule.upper()} on the validation split"
    return f"the best {metric_words(rule)} on the validation split"


def threshold_text(thresholds: Thresholds, metric: Metric) -> str:
    """The winner's thresholds and the test scores with them: 0.31 for spam, the best F1 on ...: ..."""
    values = ", ".join(f"{value:.4g} for {label}" for label, value in thresholds.values.items())
    if len(thresholds.values) > MOST_THRESHOLDS:
        cuts = sorted(thresholds.values.values())
        values = f"{cuts[0]:.3g} to {cuts[-1]:.3g} for {len(cuts)} labels"
    if "micro_f1" in thresholds.test.more:  # several labels a text: all scores are by them
        return f"{values} ({threshold_rule(thresholds.rule)})"
    # Those of the probabilities alone stay as they were.
    shown = shown_metrics(thresholds.test.more, metric)
    moved = [name for name in shown if "more classes" in entry_of(name).tasks]
    scores = scores_text(thresholds.test, thresholds.interval, moved)
    return f"{values} ({threshold_rule(thresholds.rule)}): {scores}"


def scores_text(
    test: TestScores, interval: Mapping[str, tuple[float, float]], metrics: Sequence[Metric]
) -> str:
    """Accuracy and further scores on one line, with their intervals."""
    texts = []
    for name in dict.fromkeys(("accuracy", *metrics)):
        ends = " to ".join(score_text(end, name) for end in interval.get(name, ()))
        texts.append(f"{metric_words(name)} {score_text(test.by(name), name)}{f' ({ends})' if ends else ''}")
    return ", ".join(texts)


def shown_metrics(scores: Mapping[str, float], metric: Metric) -> list[Metric]:
    """Metrics that tables of test scores show beside those that are always there: the sweep's own, and of two classes,
    or of several labels a text, those that are made for them.

    Args:
        scores: the winner's, by metric.
    """
    two = [
        name for name in scores if "more classes" not in entry_of(name).tasks and name != "subset_accuracy"
    ]
    # Of several metrics that name a class, the sweep's own, and the positive class's where it has a threshold.
    wanted = [metric, *(["mcc"] if two else []), *two, *(name for name in scores if label_of(name))]
    return [name for name in dict.fromkeys(wanted) if name not in ALWAYS and name in scores]


def judged_text(metric: Metric, objective: Metric) -> str:
    """By what trials are judged, in words; empty where that is the metric."""
    return "" if objective == metric else f"judged by {metric_words(objective)}"


def parameters_text(count: int | None) -> str:
    """A number of parameters: 344.1 K, 1.3 M."""
    if count is None:
        return "-"
    if count >= 999_950:
        return f"{count / 1e6:.1f} M"
    return f"{count / 1e3:.1f} K"


def duration(seconds: float) -> str:
    """Seconds as 0:42, 3:05 or 2:03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counts_text(trials: Sequence[TrialRecord], stopping: str) -> str:
    """How many trials ended in which way, the finalists of a search on a part of the rows apart.

    Args:
        stopping: label of the sweep's stopping rule, see `tuning.search.stopping`.
    """
    if last := finalists(trials):
        search = _counts(searched_trials(trials), stopping)
        return f"{search}; finalists on all rows: {_counts(last, stopping)}"
    return _counts(trials, stopping)


def _counts(trials: Sequence[TrialRecord], stopping: str) -> str:
    states: tuple[TrialState, ...] = ("completed", "stopped", "failed", "running", "interrupted")
    counts = Counter(
        (states.index(trial.state), state_text(trial, stopping).replace("interrupted", "to go on"))
        for trial in trials
    )
    return ", ".join(f"{counts[key]} {key[1]}" for key in sorted(counts)) or "no trials yet"


def state_text(trial: TrialRecord, stopping: str) -> str:
    """A trial's state, and of one that was stopped, by what: the stopping rule, or the end of the sweep's time.

    One that ended because its validation loss no longer fell is completed, and said to have ended early.

    Args:
        stopping: label of the sweep's stopping rule.
    """
    if trial.state == "completed" and trial.stopped_by == "early_end":
        return "ended early"
    if trial.state != "stopped":
        return trial.state
    return f"stopped by {'the time limit' if trial.stopped_by == 'time' else stopping}"


def part_text(plan: Mapping[str, Any]) -> str:
    """The part of the rows that a search ran on, of a plan's summary: 15 % of the rows (4,305). Empty for all rows."""
    part, rows = plan.get("part"), plan.get("data", {}).get("rows", {})
    if not part or not rows.get("train"):
        return ""
    return f"{share_text(part['train'] / rows['train'])} of the rows ({part['train']:,})"


def share_text(share: float) -> str:
    """A share in per cent, with two digits at least: 15 %, 0.25 %."""
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def unmerged_rows(result: SweepResult) -> list[tuple[str, TestScores]]:
    """Table rows of the winner's hyperparameters trained on the unmerged labels; none if nothing was merged."""
    if result.unmerged is None:
        return []
    return [
        (f"trained on {result.unmerged.classes} classes", result.unmerged.test),
        ("  and merged afterwards", result.unmerged.merged),
    ]


def escape(text: str) -> str:
    """Any text as one line of Markdown that shows it literally."""
    return SPECIAL.sub(r"\\\1", one_line(text))


def one_line(text: str) -> str:
    """A text without line breaks, control characters and repeated blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
