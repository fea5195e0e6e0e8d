"""The tables of `sweep.py`: wall times, their causes, and what became of the aims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from common import spread, table
from spans import Cause
from sweep_shape import Shape
from sweep_times import SweepTimes

LORASWEEP, DOCUMENTED = "lorasweep", "as documented"
AIM_FASTER, AIM_OVERHEAD, AIM_NEXT, AIM_MLFLOW = 2.5, 0.15, 0.5, 0.02


@dataclass(frozen=True)
class Outcome:
    """A sweep that has ended.

    Attributes:
        best: best validation accuracy of any trial.
        tried: settings of its trials, in their order.
    """

    times: SweepTimes
    best: float
    tried: list[dict[str, object]]


def wall_rows(measured: dict[str, list[Outcome]]) -> Iterator[list[str]]:
    """A row a side: wall time, what it trained, how well it learnt."""
    for name, outcomes in measured.items():
        times = [outcome.times for outcome in outcomes]
        yield [
            name,
            spread([time.wall for time in times]),
            spread([time.since_ray for time in times]),
            spread([time.rungs for time in times], 0),
            spread([time.wall / time.rungs for time in times], 2),
            spread([gap for time in times for gap in time.next_trials], 2),
            spread([100 * outcome.best for outcome in outcomes]),
        ]


def cause_rows(measured: dict[str, list[Outcome]]) -> Iterator[list[str]]:
    """A row a cause: seconds and share of the wall time, median over the rounds."""
    for cause in Cause:
        cells, most = [str(cause)], 0.0
        for outcomes in measured.values():
            seconds = median(outcome.times.causes[cause] for outcome in outcomes)
            share = median(outcome.times.causes[cause] / outcome.times.wall for outcome in outcomes)
            cells += [f"{seconds:.1f}", f"{share:.1%}"] if seconds else ["", ""]
            most = max(most, seconds)
        if most:
            yield cells


def aims(measured: dict[str, list[Outcome]], workers: int) -> Iterator[list[str]]:
    """A row an aim: what was wanted, what was seen."""
    own = [outcome.times for outcome in measured[LORASWEEP]]
    other = [outcome.times for outcome in measured[DOCUMENTED]]
    faster = [b.wall / a.wall for a, b in zip(own, other, strict=True)]
    per_rung = [b.wall / b.rungs / (a.wall / a.rungs) for a, b in zip(own, other, strict=True)]
    overhead, idle = [100 * time.overhead for time in own], [100 * time.idle for time in own]
    gaps = [gap for time in own for gap in time.next_trials]
    mlflow = [100 * time.mlflow(workers) for time in own]

    def verdict(reached: bool) -> str:
        return "reached" if reached else "missed"

    yield [
        "whole sweep, times as fast as documented",
        f"at least {AIM_FASTER}",
        f"{spread(faster, 2)}; for each evaluation {spread(per_rung, 2)}",
        verdict(median(faster) >= AIM_FASTER),
    ]
    yield [
        "neither training nor evaluation, since Ray's start",
        f"at most {AIM_OVERHEAD:.0%}",
        f"{spread(overhead)} %, of which {spread(idle)} % with no trial left for a worker",
        verdict(median(overhead) <= 100 * AIM_OVERHEAD),
    ]
    yield [
        "start of a further trial",
        f"at most {AIM_NEXT} s",
        f"{spread(gaps, 2)} s",
        verdict(median(gaps) <= AIM_NEXT),
    ]
    yield [
        "MLflow, of the wall time",
        f"at most {AIM_MLFLOW:.0%}",
        f"{spread(mlflow)} %",
        verdict(median(mlflow) <= 100 * AIM_MLFLOW),
    ]


def same_settings(measured: dict[str, list[Outcome]], shape: Shape) -> bool:
    """Whether every sweep tried just the settings that were drawn for it."""
    return all(outcome.tried == shape.settings for outcomes in measured.values() for outcome in outcomes)


def report(measured: dict[str, list[Outcome]], shape: Shape) -> list[str]:
    """The result in Markdown, in parts."""
    rounds = len(measured[LORASWEEP])
    times = "once each" if rounds == 1 else f"{rounds} rounds in turn, median (least–greatest)"
    head = ["", *(cell for name in measured for cell in (f"{name}, s", "share"))]
    parts = [
        "# A whole sweep",
        f"The demonstration's texts, which the project makes itself: {shape.train_rows} training and "
        f"{shape.validation_rows} validation rows, MiniLM-L6, batches of {shape.batch_size}, "
        f"{len(shape.settings)} trials of up to {shape.rungs} evaluations in {shape.epochs} "
        f"epoch{'s' * (shape.epochs != 1)}, {shape.concurrency} at once with {shape.threads} "
        f"thread{'s' * (shape.threads != 1)} each; {times}. Each side is a process of its own, measured from its "
        "start to its end.",
        "*As documented* is `documented_sweep.py`: a function trainable that builds tokenizer, PEFT model and "
        "`Trainer` and tokenises its rows in each trial, `OptunaSearch`, `ASHAScheduler`, `MLflowLoggerCallback`. "
        "Both try the same settings in the same order (drawn once, handed to Optuna as its first trials), with the "
        "same rows, seed, batch size, precision, adapted modules, ASHA rungs and rule. Both find MLflow's database "
        "made. lorasweep's linear models, untuned settings and model registry are off, as the other side has "
        "nothing like them; that it reads and splits the texts, scores its winner on the test split, exports the "
        "best adapters and draws a report is in its time.",
        table(
            [
                "",
                "wall, s",
                "since Ray's start, s",
                "evaluations",
                "s for each",
                "next trial, s",
                "best accuracy, %",
            ],
            wall_rows(measured),
        ),
        f"From one evaluation to the next it is {shape.rung_steps} steps. *Next trial*: from a trial's last report to "
        "the first step of the next one in its place.",
        table(head, cause_rows(measured)),
        "While trials run, a cause has the mean over the workers; what a worker waits for while MLflow holds up the "
        "driver is MLflow's. lorasweep's MLflow works on a thread beside the trials: the core's time that it takes "
        f"there, {spread([outcome.times.mlflow_beside for outcome in measured[LORASWEEP]])} s, is in the last row of "
        "the next table and not in this one.",
        table(["aim", "wanted", "seen", ""], aims(measured, shape.concurrency)),
    ]
    if not same_settings(measured, shape):
        parts.append("**The two sides did not try the same settings: these figures compare nothing.**")
    return parts
