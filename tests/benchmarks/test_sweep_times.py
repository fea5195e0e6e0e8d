"""A sweep's wall time divided by cause: what the figures of `benchmarks/sweep.py` stand on."""

from __future__ import annotations

import pytest
from spans import Cause, Span
from sweep_times import paint, sweep_times

DRIVER, WORKERS = 1, (11, 12)


def span(cause: Cause, start: float, end: float, process: int = DRIVER, main: bool = True) -> Span:
    return Span(cause, start, end, cpu=end - start, process=process, main=main)


def trial(process: int, start: float, end: float) -> list[Span]:
    """Loads for 1 s, trains but for the last second, and reports at its end; the answer takes half a second."""
    return [
        span(Cause.TRIAL, start, end + 0.5, process),
        span(Cause.LOADING, start, start + 1, process),
        span(Cause.TRAINING, start + 1, end - 1, process),
        span(Cause.EVALUATION, end - 1, end, process),
        span(Cause.REPORTING, end, end + 0.5, process),
    ]


# Ray is ready at 10; trials run from 10 to 50, three of them in two places; the process ends at 60.
SPANS = [
    span(Cause.RAY_START, 4, 10),
    span(Cause.TRIALS, 10, 50),
    *trial(WORKERS[0], 12, 30),
    *trial(WORKERS[1], 12, 40),
    *trial(WORKERS[0], 31, 49),
    span(Cause.MLFLOW, 20, 22, main=False),
    span(Cause.WINNER, 50, 56),
    span(Cause.EVALUATION, 53, 55),
    span(Cause.RAY_END, 58, 59),
]


def test_causes_sum_to_the_wall_time() -> None:
    times = sweep_times(SPANS, DRIVER, started=0, ended=60, workers=2)
    assert times.wall == 60
    assert sum(times.causes.values()) == pytest.approx(60)
    assert times.since_ray == 50
    assert times.rungs == 3
    # The mean over the two places: 16 + 16 and 26 seconds of training.
    assert times.causes[Cause.TRAINING] == pytest.approx((16 + 16 + 26) / 2)
    # The winner's evaluation is an evaluation, and what is around it is the winner's.
    assert times.causes[Cause.EVALUATION] == pytest.approx(3 / 2 + 2)
    assert times.causes[Cause.WINNER] == pytest.approx(4)
    # From 40 on the second place has nothing to do.
    assert times.causes[Cause.IDLE] == pytest.approx(9 / 2)
    assert times.causes[Cause.RAY_START] == pytest.approx(6)
    assert times.overhead == pytest.approx(1 - (29 + 3.5) / 50)


def test_a_further_trial_starts_after_the_last_report_before_it() -> None:
    times = sweep_times(SPANS, DRIVER, started=0, ended=60, workers=2)
    assert times.next_trials == [pytest.approx(2.0)]


def test_mlflows_thread_costs_its_processor_time() -> None:
    times = sweep_times(SPANS, DRIVER, started=0, ended=60, workers=2)
    assert times.causes[Cause.MLFLOW] == 0
    assert times.mlflow_beside == 2
    assert times.mlflow(2) == pytest.approx(1 / 60)


def test_of_nested_spans_the_innermost_counts() -> None:
    nested = [span(Cause.WINNER, 0, 10), span(Cause.LOADING, 2, 4)]
    pieces = [(piece.start, piece.end, piece.cause) for piece in paint(nested, 0, 12, Cause.REST)]
    assert pieces == [
        (0, 2, Cause.WINNER),
        (2, 4, Cause.LOADING),
        (4, 10, Cause.WINNER),
        (10, 12, Cause.REST),
    ]
