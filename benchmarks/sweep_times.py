"""A sweep's wall time divided by cause, from the spans of its processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from spans import Cause, Span

# While a worker waits for the driver, what the driver is at is what it waits for.
WAITING = (Cause.STARTING, Cause.REPORTING, Cause.REST)


@dataclass(frozen=True)
class SweepTimes:
    """One sweep's time.

    Attributes:
        wall: seconds of the whole process.
        causes: seconds by cause, `wall` in sum; while trials run, the mean over the workers.
        since_ray: seconds from Ray's being ready to the process's end.
        mlflow_beside: seconds of a core that MLflow's calls used beside the trials.
        next_trials: seconds from a trial's last report to the first step of the next trial in its place.
        rungs: evaluations of all trials.
    """

    wall: float
    causes: Mapping[Cause, float]
    since_ray: float
    mlflow_beside: float
    next_trials: list[float]
    rungs: int

    @property
    def overhead(self) -> float:
        """The share of the time since Ray's start in which a worker neither trains nor evaluates."""
        return 1 - (self.causes[Cause.TRAINING] + self.causes[Cause.EVALUATION]) / self.since_ray

    @property
    def idle(self) -> float:
        """The part of `overhead` in which no trial was left for a worker."""
        return self.causes[Cause.IDLE] / self.since_ray

    def mlflow(self, workers: int) -> float:
        """MLflow's share of the wall time: what waited for it, and what it took from the trials beside it."""
        return (self.causes[Cause.MLFLOW] + self.mlflow_beside / workers) / self.wall


@dataclass(frozen=True)
class Piece:
    """A stretch of time with one cause."""

    start: float
    end: float
    cause: Cause


class Trial:
    """A trial in its worker, up to the last thing that it did.

    The answer to the last report is waited for until the next trial comes or the process goes: that is no part
    of the trial.
    """

    def __init__(self, whole: Span, spans: Iterable[Span]) -> None:
        parts = [
            span
            for span in spans
            if span.process == whole.process
            and span.cause != Cause.TRIAL
            and whole.start <= span.start <= whole.end
        ]
        reports = [span for span in parts if span.cause == Cause.REPORTING]
        self.process, self.start, self.rungs = whole.process, whole.start, len(reports)
        self.last_report = reports[-1].start if reports else whole.end
        self.parts = [span for span in parts if not reports or span is not reports[-1]]
        self.end = max(
            [self.last_report, *(span.end for span in self.parts if span.start >= self.last_report)]
        )
        self.first_step = next((span.start for span in parts if span.cause == Cause.TRAINING), whole.end)


def sweep_times(spans: Sequence[Span], driver: int, started: float, ended: float, workers: int) -> SweepTimes:
    """Divide a sweep's time.

    Args:
        driver: process number of the command that ran the sweep.
        started, ended: when that process began and had ended, in seconds since 1970.
        workers: trials at once.
    """
    own = [span for span in spans if span.process == driver]
    once = {span.cause: span for span in own if span.cause in (Cause.RAY_START, Cause.TRIALS, Cause.RAY_END)}
    ready, trials, leaving = once[Cause.RAY_START].end, once[Cause.TRIALS], once[Cause.RAY_END]
    waits = [span for span in own if span.cause == Cause.MLFLOW and span.main]
    lanes = _lanes([Trial(span, spans) for span in spans if span.cause == Cause.TRIAL], workers)
    last = max(trial.end for lane in lanes for trial in lane)
    pieces = [
        (piece, 1 / workers) for lane in lanes for piece in _lane_pieces(lane, trials, last, workers, waits)
    ]
    # What a worker does after the trials, and what a thread does that is waited for, is what the driver waits for.
    outside = [
        span
        for span in spans
        if not trials.start <= span.start < trials.end
        and (span.main or span.process != driver or any(w.start <= span.start < w.end for w in waits))
    ]
    for start, end, rest in (
        (started, ready, Cause.BEFORE),
        (ready, trials.start, Cause.REST),
        (trials.end, leaving.end, Cause.REST),
        (leaving.end, ended, Cause.RAY_END),
    ):
        pieces += [(piece, 1.0) for piece in paint(outside, start, end, rest)]
    causes: defaultdict[Cause, float] = defaultdict(float)
    for piece, share in pieces:
        causes[piece.cause] += (piece.end - piece.start) * share
    beside = [span for span in own if span.cause == Cause.MLFLOW and trials.start <= span.start < trials.end]
    return SweepTimes(
        wall=ended - started,
        causes=causes,
        since_ray=ended - ready,
        mlflow_beside=sum(span.cpu for span in beside if not span.main),
        next_trials=[
            after.first_step - before.last_report for lane in lanes for before, after in pairwise(lane)
        ],
        rungs=sum(trial.rungs for lane in lanes for trial in lane),
    )


def paint(spans: Iterable[Span], start: float, end: float, rest: Cause) -> Iterator[Piece]:
    """A stretch of time divided by its spans: of several at once the innermost counts, of none `rest`."""
    inside = [span for span in spans if span.start < end and span.end > start]
    edges = sorted({start, end, *(time for span in inside for time in (span.start, span.end))})
    for left, right in pairwise(edges):
        if left < start or right > end:
            continue
        over = [span for span in inside if span.start <= left and span.end >= right]
        yield Piece(left, right, max(over, key=lambda span: span.start).cause if over else rest)


def _lanes(trials: Iterable[Trial], workers: int) -> list[list[Trial]]:
    """Trials in the places that they ran in: a process's own, or the one that was free first."""
    lanes: list[list[Trial]] = [[] for _ in range(workers)]
    for trial in sorted(trials, key=lambda trial: trial.start):

        def fit(lane: list[Trial], process: int = trial.process) -> tuple[bool, float]:
            return bool(lane) and lane[-1].process != process, lane[-1].end if lane else 0.0

        min(lanes, key=fit).append(trial)
    return lanes


def _lane_pieces(
    lane: list[Trial], trials: Span, last: float, workers: int, waits: Sequence[Span]
) -> Iterator[Piece]:
    """A worker's time from the trials' beginning to their end."""
    free = trials.start
    for trial in lane:
        yield from _waiting(Piece(free, trial.start, Cause.STARTING), waits)
        for piece in paint(trial.parts, trial.start, trial.end, Cause.REST):
            yield from _waiting(piece, waits) if piece.cause in WAITING else [piece]
        free = trial.end
    yield Piece(free, last, Cause.IDLE)
    yield from _waiting(Piece(last, trials.end, Cause.REST), waits)


def _waiting(piece: Piece, waits: Iterable[Span]) -> Iterator[Piece]:
    """A worker's waiting, divided into that for MLflow on the driver's side and the rest."""
    return paint(waits, piece.start, piece.end, piece.cause)
