"""`MLflowCopy`: keeps a sweep's copy in MLflow up to date, on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.training.errors import LorasweepError, SettingsError
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord, now
from lorasweep.tuning.tracking.copy import copy_sweep
from lorasweep.tuning.tracking.runs import EXPERIMENT, SweepRuns, identity_of
from lorasweep.tuning.tracking.store import artifact_root, hide_passwords, quiet, reason

if TYPE_CHECKING:
    from lorasweep.tuning.tracking.models.registry import Registered

PATIENCE = 300.0
log = logging.getLogger("lorasweep")


class MLflowCopy(SweepListener):
    """A sweep's copy in an MLflow store.

    While the sweep runs, a thread copies it whenever something has changed. Nobody waits for that thread
    before the end: records that come while it is busy are copied together next time, the newest of each trial.
    A store that fails is reported in the log, once, and tried again later; it never stops the sweep. What MLflow
    lacks in the end, `publish` copies from the sweep's folder.

    Args:
        folder: of the sweep. It keeps the identity by which the runs are found again: the store may hold another
            sweep of this name, somebody else's or one whose folder was removed.
        uri: a store that `prepare_store` has passed.
        experiment: name of MLflow's experiment for the runs.
        patience: seconds that `end` waits for the thread.
        retry_after: seconds before another try once the store has failed.

    Attributes:
        published: whether MLflow has all of the sweep.
    """

    def __init__(
        self,
        folder: SweepFolder,
        uri: str,
        experiment: str = EXPERIMENT,
        *,
        patience: float = PATIENCE,
        retry_after: float = 30.0,
    ) -> None:
        self.published = False
        self._folder = folder
        self._uri = uri
        self._experiment = experiment
        self._patience = patience
        self._retry_after = retry_after
        self._runs: SweepRuns | None = None
        self._failing = ""
        self._news = threading.Condition()
        self._trials: dict[str, TrialRecord] = {}
        self._changed = False
        self._end: tuple[SweepResult, Mapping[str, Path]] | None = None
        self._error: BaseException | None = None
        # A daemon, so that a store that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """Open the parent run, or find it again and let it go on."""
        self._note(*past)
        self._thread.start()

    def update(self, trial: TrialRecord) -> None:
        """Copy how a trial stands: its hyperparameters, its evaluations, how it ended."""
        self._note(trial)

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """Copy the whole sweep from its folder once more, and wait for that while patience lasts."""
        with self._news:
            self._end = (result, adapters)
            self._news.notify()
        if not self._thread.ident:
            self._thread.start()
        self._thread.join(self._patience)
        if self._error is not None:
            raise self._error
        if not self.published:
            why = f"MLflow is too slow: it has had {self._patience:.0f} s for the end of the sweep"
            log.warning(
                "%s; sweep %s is complete in %s; copy it into MLflow later with: %s",
                why if self._thread.is_alive() else self._failing,
                self._folder.name,
                self._folder.path,
                self._folder.command("publish"),
            )

    def publish(self) -> None:
        """Copy what MLflow lacks of the sweep and its exported adapters, on the caller's thread.

        Raises:
            SettingsError: the store fails.
        """
        adapters = {path.name: path for path in sorted((self._folder.path / "best").glob("t*"))}
        self.published = self._copy(SweepRecord(self._folder), adapters)
        if not self.published:
            raise SettingsError(f"{self._failing}; try again later: {self._folder.command('publish')}")

    def register(self, name: str, *, self_contained: bool = False) -> Registered:
        """Make the winner a version of a registered model; see `lorasweep.tuning.tracking.models.registry.register`.

        Raises:
            LorasweepError: no winner, no adapter folder of it, or a store that fails: one line.
        """
        from lorasweep.tuning.tracking.models.registry import register

        sweep = SweepRecord(self._folder)
        winner = sweep.won("register")[1].id
        if self._runs is None or not self.published:
            self.publish()
        assert self._runs is not None
        run = self._runs.trial(winner, now())
        adapter = self._folder.path / "best" / winner
        return register(sweep, self._uri, name, adapter, run.id, self_contained=self_contained)

    def _note(self, *trials: TrialRecord) -> None:
        with self._news:
            self._trials |= {trial.id: trial for trial in trials}
            self._changed = True
            self._news.notify()

    def _work(self) -> None:
        try:
            sweep = SweepRecord(self._folder)
            sweep.state = "running"
            while self._wait():
                with self._news:
                    self._changed = False
                    sweep.trials = list(self._trials.values())
                if not self._copy(sweep):
                    self._changed = True
            assert self._end is not None
            result, adapters = self._end
            sweep = SweepRecord(self._folder)
            sweep.result, sweep.state = result, result.state
            # Opened anew: a request that was given up may have been carried out since, which makes a run twice.
            self._runs = None
            # A person who has just pressed Ctrl-C waits for the end, not for plots.
            report = result.state == "finished"
            self.published = self._copy(sweep, adapters, report=report, ended=now())
        except BaseException as error:  # a bug, or a broken record: raised where the sweep waits
            self._error = error

    def _wait(self) -> bool:
        """Wait for news; False at the end of the sweep."""
        with self._news:
            if self._failing:
                self._news.wait_for(lambda: self._end is not None, self._retry_after)
            self._news.wait_for(lambda: self._changed or self._end is not None)
            return self._end is None

    def _copy(self, sweep: SweepRecord, adapters: Mapping[str, Path] | None = None, **options: Any) -> bool:
        """Call `copy_sweep`; twice where the store has not failed before, as a line may have been cut.

        MLflow's own retries are off: they repeat a request blindly, and make a run twice. Here each try first
        looks for what is there.
        """
        error: Exception | None = None
        for _ in range(1 if self._failing else 2):
            try:
                with quiet():
                    self._runs = self._runs or self._open()
                    copy_sweep(sweep, self._runs, adapters, **options)
            except LorasweepError:  # the sweep's folder cannot be read
                raise
            # Databases, servers and artifact stores each raise errors of their own, and none may end a sweep.
            except Exception as caught:
                error, self._runs = caught, None
            else:
                self._failing = ""
                return True
        assert error is not None
        before = self._failing
        self._failing = f"MLflow at {hide_passwords(self._uri)} cannot be written to ({reason(error)})"
        log.debug("why MLflow cannot be written to", exc_info=error)
        if sweep.state == "running" and not before:
            log.warning("%s; the sweep goes on, and its records are sent later", self._failing)
        return False

    def _open(self) -> SweepRuns:
        folder = self._folder
        artifacts = artifact_root(folder.mlruns)
        return SweepRuns(self._uri, self._experiment, artifacts, folder.name, identity_of(folder.path))
