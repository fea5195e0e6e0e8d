"""Settings, scores and counts as a person reads them, in every table and page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lorasweep.search_spaces.domains import show
from lorasweep.search_spaces.fields import short_names
from lorasweep.training.settings import Hyperparameters, Metric
from lorasweep.tuning.record.folder import SweepResult, TestScores, TrialRecord

METRIC_NAMES: dict[Metric, str] = {"accuracy": "accuracy", "macro_f1": "macro-F1", "loss": "loss"}
SHORT_NAMES = short_names()
# Characters that Markdown, or HTML in it, would read as more than themselves.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")


def setting_text(value: Any) -> str:
    """A setting as a person writes it: 0.00216 as 2.2e-3."""
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return show(value)


def settings_line(hyperparameters: Hyperparameters, searched: Sequence[str]) -> str:
    """The searched hyperparameters of a trial on one line."""
    return ", ".join(
        f"{SHORT_NAMES.get(name, name)} {setting_text(getattr(hyperparameters, name))}" for name in searched
    )


def score_text(score: float | None, metric: Metric) -> str:
    """Accuracy and F1 in per cent, loss in nats."""
    if score is None:
        return "-"
    return f"{score:.4f}" if metric == "loss" else f"{score:.1%}"


def parameters_text(count: int | None) -> str:
    """A count of parameters: 344.1 K, 1.3 M."""
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


def counts_text(trials: Sequence[TrialRecord]) -> str:
    """How many trials ended in which way."""
    words = {"completed": "completed", "stopped": "stopped by ASHA", "failed": "failed", "running": "running"}
    counts = {state: sum(trial.state == state for trial in trials) for state in words}
    return ", ".join(f"{count} {words[state]}" for state, count in counts.items() if count) or "no trials yet"


def unmerged_rows(result: SweepResult) -> list[tuple[str, TestScores]]:
    """The winner's settings trained on the labels before they were merged: two rows below the winner."""
    if result.unmerged is None:
        return []
    return [
        (f"trained on {result.unmerged.classes} classes", result.unmerged.test),
        ("  and merged afterwards", result.unmerged.merged),
    ]


def escape(text: str) -> str:
    """A text of somebody's as one line of plain Markdown, whatever characters it has."""
    return SPECIAL.sub(r"\\\1", one_line(text))


def one_line(text: str) -> str:
    """A text without line ends, control characters and runs of blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
