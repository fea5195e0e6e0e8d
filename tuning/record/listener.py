"""`SweepListener`: what a sweep reports while it runs, for displays and MLflow's copy."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lorasweep.training.errors import first_line
from lorasweep.tuning.record.results import RegisteredVersion, SweepResult, Winner
from lorasweep.tuning.record.trial_records import TrialRecord

log = logging.getLogger("lorasweep")


class SweepListener:
    """Base of everything that follows a sweep; its methods do nothing.

    The sweep's folder is written before a listener is called. An exception in a listener is logged, and the sweep
    goes on. All methods are called in the driver's process, so they should return quickly.

    Example:
        >>> class Count(SweepListener):
        ...     completed = 0
        ...     def update(self, trial):
        ...         self.completed += trial.state == "completed"
    """

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """The trials are about to start.

        Args:
            plan_summary: `SweepPlan.summary()`: plain values, among them `name`, `metric`, `searched`, `stopping`
                (label of the stopping rule), `budget`, `limits` and `estimate` (in seconds); and `steps`, what comes
                after the trials: `Step` of `tuning/sweep/phases.py` as a mapping each, and the sweep's `spent` seconds.
            past: records from earlier runs of the sweep, by number.
        """

    def update(self, trial: TrialRecord) -> None:
        """A trial started, was evaluated, or ended."""

    def phase(self, text: str) -> None:
        """The sweep started something other than trials, such as scoring the winner; also before `begin`.

        Args:
            text: what it is; that of one of the `steps` begins as the step says. A training that tells how far it is
                sends another text, which ends in ": 2 of 6 rungs done".
        """

    def waiting(self, text: str) -> None:
        """Trials have waited for half a minute to start.

        Args:
            text: what they wait for, and who has it; empty once one has started.
        """

    def chosen(self, winner: Winner) -> None:
        """The winner is scored and on record; what it is compared with, its export and MLflow's copy may follow."""

    def stopping(self) -> None:
        """The user asked the sweep to stop. Called from a signal handler: take no lock."""

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """The sweep ended, in whatever state; also without a `begin`.

        Args:
            adapters: trial id → exported folder of the best trials; empty unless the sweep finished.
        """


@runtime_checkable
class StoreCopy(Protocol):
    """A listener that keeps the sweep in MLflow.

    Attributes:
        published: after `end`, whether MLflow has all of the sweep.
    """

    published: bool

    def register(self, name: str) -> RegisteredVersion:
        """Make the winner a version of a registered model."""


class Listeners(SweepListener):
    """Passes each call on to several listeners; one that raises is logged once and disturbs nobody."""

    def __init__(self, listeners: Iterable[SweepListener] = ()) -> None:
        self._listeners = list(listeners)
        self._failed: set[int] = set()

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        self._call("begin", plan_summary, past)

    def update(self, trial: TrialRecord) -> None:
        self._call("update", trial)

    def phase(self, text: str) -> None:
        self._call("phase", text)

    def waiting(self, text: str) -> None:
        self._call("waiting", text)

    def chosen(self, winner: Winner) -> None:
        self._call("chosen", winner)

    def stopping(self) -> None:
        for listener in self._listeners:
            # The signal may interrupt a print or a log line of this very thread: logging is not safe here.
            with suppress(Exception):
                listener.stopping()

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        self._call("end", result, adapters)

    def _call(self, method: str, *arguments: object) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, method)(*arguments)
            except Exception as error:
                if id(listener) not in self._failed:
                    self._failed.add(id(listener))
                    name = type(listener).__name__
                    log.warning("%s.%s failed (%s); the sweep goes on", name, method, first_line(error))
                log.debug("why %s failed", method, exc_info=True)
