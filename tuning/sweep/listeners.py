"""What a sweep tells of itself, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lorasweep.tuning.record.folder import RegisteredVersion, SweepResult, TrialRecord
from lorasweep.tuning.sweep.plan import SweepPlan
from lorasweep.tuning.trials.recorder import Listener


class Display(Listener, Protocol):
    """What shows a sweep to a person as it goes."""

    def begin(self, plan: SweepPlan, past: Sequence[TrialRecord]) -> None:
        """The trials begin."""

    def phase(self, text: str) -> None:
        """What is being done now, when it is not trials."""

    def stopping(self) -> None:
        """The user asked to stop."""

    def end(self) -> None:
        """Nothing more will come."""


class Store(Listener, Protocol):
    """What keeps a sweep for later browsing: MLflow."""

    published: bool

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """The sweep begins or goes on."""

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """The sweep ended, in whatever way; `published` tells whether the store has all of it now."""

    def register(self, name: str) -> RegisteredVersion:
        """Make the winner a version of a registered model."""
