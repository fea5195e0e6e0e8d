"""Who follows a sweep while it runs: MLflow's copy, the terminal, a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorasweep.tuning.record.results import SweepResult, TrialRecord


class SweepListener:
    """Follows one sweep. Every method does nothing by default; override what you want to hear of.

    The sweep calls these on its own thread and waits for them, so they return quickly.
    """

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """The trials begin.

        Args:
            plan_summary: what `plan.json` holds: resources, budget, data, machine.
            past: trials of an earlier run of this sweep.
        """

    def update(self, trial: TrialRecord) -> None:
        """A trial began, reached a rung, or ended; its record is on disk."""

    def phase(self, text: str) -> None:
        """Work other than trials begins, such as scoring the winner."""

    def stopping(self) -> None:
        """The user pressed Ctrl-C, and the trials are being stopped."""

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """The sweep ended, in whatever way.

        Args:
            adapters: trial → folder of its exported adapter, for the best trials.
        """
