"""A sweep driven as the command line drives it, with a clock on what the driver and MLflow do, for `scale.py`."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from scale_process import resident

from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.machine import usable_cores
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.plan.planning import plan_sweep
from lorasweep.tuning.sweep.run import run_sweep
from lorasweep.tuning.sweep.start import create_folder
from lorasweep.tuning.tracking.store import prepare_store, tracking_store
from lorasweep.tuning.tracking.thread import MLflowCopy
from lorasweep.tuning.trials.hardware import Node
from lorasweep.tuning.trials.trial import TrialSetup

# Seconds for which workers wait for each other: on few cores many of them take long to start.
PATIENCE = 180.0
Trial = Callable[[dict[str, Any], EncodedDataset, TrialSetup], None]


@dataclass
class Costs:
    """What a sweep of costless trials took.

    Attributes:
        ends: of each trial, seconds since the driver began when its end was on record.
        resident: the driver's megabytes then.
        evaluations: reports of all trials.
        records: what the driver handed to MLflow's thread: a trial's start, rungs, checkpoints, end.
        sent: of these, what the thread sent; the newest of a trial takes the place of those that wait.
        sending, sending_cpu: seconds of the thread in sending those, by the clock and of the processor.
        finishing: seconds of the thread with the end of the sweep: results, adapters, report.
        waited: seconds that the driver spent in calls of the store, the wait for its end included.
        seconds: of the whole sweep, Ray's start included.
        workers: processes that ran trials.
    """

    ends: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    evaluations: int = 0
    records: int = 0
    sent: int = 0
    sending: float = 0.0
    sending_cpu: float = 0.0
    finishing: float = 0.0
    waited: float = 0.0
    seconds: float = 0.0
    workers: int = 0

    def trials(self) -> float:
        """Seconds from the first trial's end to the last one's: Ray and the first worker have started."""
        return self.ends[-1] - self.ends[0]

    def rate(self, first: int, last: int) -> float:
        """Seconds a trial between the ends of two trials, counted from 0."""
        return (self.ends[last] - self.ends[first]) / (last - first)


class Watch(SweepListener):
    """Notes when things happen."""

    def __init__(self, costs: Costs) -> None:
        self._costs, self._began, self._ended = costs, time.perf_counter(), set[str]()

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def update(self, trial: TrialRecord) -> None:
        if trial.ended is None or trial.id in self._ended:
            return
        self._ended.add(trial.id)
        self._costs.ends.append(self._now())
        self._costs.resident.append(resident())
        self._costs.evaluations += len(trial.evaluations)

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        self._costs.seconds = self._now()


class TimedCopy(MLflowCopy):
    """MLflow's copy with a clock on its thread, and on what its calls keep the driver from going on."""

    def __init__(self, folder: SweepFolder, uri: str, costs: Costs) -> None:
        super().__init__(folder, uri)
        self._costs = costs
        self._sent: dict[str, TrialRecord] = {}

    def _timed(self, call: Callable[..., None], *arguments: Any) -> None:
        began = time.perf_counter()
        try:
            call(*arguments)
        finally:
            self._costs.waited += time.perf_counter() - began

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        self._timed(super().begin, plan_summary, past)

    def update(self, trial: TrialRecord) -> None:
        self._costs.records += 1
        self._timed(super().update, trial)

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        self._timed(super().end, result, adapters)

    def _copy(self, sweep: SweepRecord, adapters: Mapping[str, Path] | None = None, **options: Any) -> bool:
        began, cpu = time.perf_counter(), time.thread_time()
        complete = super()._copy(sweep, adapters, **options)
        seconds = time.perf_counter() - began
        if sweep.state != "running":
            self._costs.finishing = seconds
            return complete
        self._costs.sending += seconds
        self._costs.sending_cpu += time.thread_time() - cpu
        self._costs.sent += sum(self._sent.get(trial.id) is not trial for trial in sweep.trials)
        self._sent = {trial.id: trial for trial in sweep.trials}
        return complete


def after_meeting(trial: Trial, place: Path, workers: int) -> Trial:
    """A trial whose process waits, the first time, until as many have started: none has a head start."""

    def meet(config: dict[str, Any], data: EncodedDataset, setup: TrialSetup) -> None:
        # A worker is killed in the end: what it keeps in temporary folders goes with the sweep's own.
        tempfile.tempdir = str(place.parent)
        (place / str(os.getpid())).touch()
        deadline = time.monotonic() + PATIENCE
        while len(list(place.iterdir())) < workers and time.monotonic() < deadline:
            time.sleep(0.05)
        trial(config, data, setup)

    return meet


def drive(config: SweepConfig, trial: Trial, folder: Path, costs: Costs, *, to_the_end: bool) -> None:
    """Run a sweep as the command line does, on as many cores as it asks for, which Ray only counts."""
    cores = usable_cores()
    at_once = config.resources.concurrency or cores
    counted = (Node(max(at_once, cores), 0),)
    mlruns, place = folder / "mlruns", folder / "meeting"
    place.mkdir()
    with ExitStack() as stack:
        stack.enter_context(patch("lorasweep.tuning.sweep.plan.planning.find_nodes", lambda address: counted))
        plan = plan_sweep(config)
        at_once = plan.resources.concurrency
        stack.enter_context(
            patch("lorasweep.tuning.sweep.rounds.run_trial", after_meeting(trial, place, at_once))
        )
        if not to_the_end:
            stack.enter_context(patch("lorasweep.tuning.sweep.run.choose_winner", _stop))
        uri = tracking_store(None, mlruns)
        prepare_store(uri, mlruns)
        sweep = create_folder(plan, mlruns)
        result = run_sweep(plan, sweep, [Watch(costs), TimedCopy(sweep, uri, costs)])
    costs.workers = len(list(place.iterdir()))
    assert result.published or not to_the_end, "MLflow lacks a part of the sweep"


def _stop(*_: object) -> NoReturn:
    # As after a Ctrl-C, which a sweep takes for its end.
    raise KeyboardInterrupt
