"""What a sweep does after its trials: which steps, in which order, and how much work each is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.sweep.winner.phases import steps_after_trials

PLAIN = [
    "scoring",
    "training a linear model for comparison",
    "exporting the best adapters",
    "publishing to MLflow",
    "registering the winner",
]
UNTUNED = "training the untuned settings for comparison"
UNMERGED = "training the winner's settings on the unmerged labels"


def plan_of(merged: bool = False, gpus: float = 0, part: Any = None, bases: int = 1, **settings: Any) -> Any:
    """What is read of a plan: two trials at once, of two epochs and six rungs each."""
    names = ("a", "b", "c") if merged else ()
    return SimpleNamespace(
        config=SweepConfig.model_validate({"name": "news", "training": {"epochs": 2}} | settings),
        dataset=SimpleNamespace(train="x" * 480, validation="x" * 160, test="x" * 320, original_names=names),
        budget=SimpleNamespace(rungs=6),
        resources=SimpleNamespace(concurrency=2, cpus=4, gpus_per_trial=gpus),
        part=part,
        bases=dict.fromkeys(range(bases)),
        finalists=4 if part else 0,
    )


def test_the_steps_that_the_settings_ask_for() -> None:
    assert [step.text for step in steps_after_trials(plan_of())] == PLAIN
    several = [step.text for step in steps_after_trials(plan_of(bases=2))]
    assert several == [*PLAIN[:2], "timing one text with each base model", *PLAIN[2:]]
    more = plan_of(merged=True, compare_untuned=True, choice={"confirm": "3x3"}, registry={"enabled": False})
    steps = [step.text for step in steps_after_trials(more)]
    assert steps == ["confirming the best", *PLAIN[:2], UNTUNED, UNMERGED, *PLAIN[2:4]]
    # An extended sweep has them on record.
    earlier: Any = SimpleNamespace(untuned="scores", baselines={"linear": "scores"})
    again = [step.text for step in steps_after_trials(more, earlier)]
    assert [step for step in steps if step not in again] == [PLAIN[1], UNTUNED]


@pytest.mark.parametrize(("gpus", "faster"), [(0, 2**0.5), (1, 1)])
def test_training_after_the_trials_is_the_full_budget(gpus: float, faster: float) -> None:
    """Nine trainings of six rungs, two at once; one alone, which has the cores of two."""
    plan = plan_of(merged=True, gpus=gpus, compare_untuned=True, choice={"confirm": "3x3"})
    rungs = {step.text: step.rungs for step in steps_after_trials(plan)}
    assert rungs["confirming the best"] == 5 * 6
    assert rungs[UNMERGED] == pytest.approx(6 / faster)
    # Beside the last trials it has the cores of one.
    assert rungs[UNTUNED] == 6
    assert [step.text for step in steps_after_trials(plan) if step.beside] == [PLAIN[1], UNTUNED]
    # A rung trains 160 rows, each for three predictions, and predicts 160.
    assert rungs["scoring"] == pytest.approx(0.5 / faster)


def test_finalists_are_trained_on_more_rows_than_the_search() -> None:
    """Four of them, two at once; and what else trains on all rows is as long, in rungs of the search."""
    part = SimpleNamespace(train="x" * 48, validation="x" * 160)
    plan = plan_of(part=part, merged=True, gpus=1, choice={"confirm": "2x1"})
    steps = {step.text: step for step in steps_after_trials(plan)}
    assert next(iter(steps)) == "training the finalists on all rows"
    # A rung of the search: 16 rows trained, 160 predicted. Of the others: 160 of each.
    full = 6 * (3 * 160 + 160) / (3 * 16 + 160)
    first = steps["training the finalists on all rows"]
    assert (first.rungs, first.trials) == (pytest.approx(2 * full), True)
    assert steps["confirming the best"].rungs == pytest.approx(full)
    assert steps[UNMERGED].rungs == pytest.approx(full)
    assert steps["scoring"].rungs == pytest.approx(320 / (3 * 16 + 160))
