"""`SweepListener`: what a sweep reports while it runs, for displays and MLflow's copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorasweep.tuning.record.results import SweepResult, TrialRecord


class SweepListener:
    """Base of everything that follows a sweep; its methods do nothing.

    The sweep's folder is written before a listener is called. A method that raises is logged, and the sweep goes
    on. All methods are called in the driver's process, `stopping` from a signal handler.

    Example:
        >>> class Count(SweepListener):
        ...     trials = 0
        ...     def update(self, trial):
        ...         self.trials += trial.state == "completed"
    """

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """The trials are about to start.

        Args:
            plan_summary: `SweepPlan.summary()`: plain values, among them `name`, `metric`, `searched` and `budget`.
            past: records from earlier runs of the sweep, by number.
        """

    def update(self, trial: TrialRecord) -> None:
        """A trial started, was evaluated, or ended."""

    def phase(self, text: str) -> None:
        """The sweep started something other than trials, such as scoring the winner."""

    def stopping(self) -> None:
        """The user asked the sweep to stop. Called from a signal handler: return at once, take no lock."""

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """The sweep ended, in whatever state.

        Args:
            adapters: trial id → exported folder of the best trials; empty unless the sweep finished.
        """
