"""What the winner is compared with, and when it is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.results import Reference, SweepResult, TestScores
from lorasweep.tuning.sweep.winner import references as module
from lorasweep.tuning.sweep.winner.after_trials import TestedClassifier, test_baselines, train_reference
from lorasweep.tuning.sweep.winner.references import References
from lorasweep.tuning.trials.shares import Resources


def plan(concurrency: int) -> Any:
    config = SweepConfig.model_validate({"name": "demo", "compare_untuned": True})
    resources = Resources(4, 0.0, 4 // concurrency, 0.0, concurrency)
    more = {
        "dataset": "rows",
        "base": None,
        "target_modules": {},
        "bases": {},
        "amp": SimpleNamespace(name="fp32"),
    }
    return SimpleNamespace(config=config, resources=resources, **more)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """Cores and function of what is handed to Ray's workers. What runs in this process gives cores and function."""
    tasks: list[tuple[int, Any]] = []

    def call(resources: Resources, function: Any, *arguments: Any) -> Any:
        tasks.append((resources.cpus_per_trial, function))
        return SimpleNamespace(result=lambda: answer(resources, function))

    def run_alone(address: str | None, resources: Resources, function: Any, *arguments: Any) -> Any:
        return answer(resources, function)

    def answer(resources: Resources, function: Any) -> Any:
        if function is test_baselines:
            return {"cores": resources.cpus_per_trial}
        return TestedClassifier(None, 0.5, float(resources.cpus_per_trial))  # type: ignore[arg-type]

    monkeypatch.setattr(module, "RemoteCall", call)
    monkeypatch.setattr(module, "run_alone", run_alone)
    return tasks


def test_trained_beside_the_last_trials(queued: list[tuple[int, Any]]) -> None:
    """With a trial's cores each, and once, however often that begins. The winner's scoring leaves them theirs."""
    references = References(plan(concurrency=2), "data")
    assert references.resources.cpus_per_trial == 4
    references.begin()
    references.begin()
    assert queued == [(2, train_reference), (1, test_baselines)], "the longer one first"
    assert references.resources.cpus_per_trial == 2
    assert references.untuned().seconds == 2.0
    assert references.baselines() == {"cores": 1}
    assert len(queued) == 2


def test_trained_at_the_end_where_no_core_is_free_before(queued: list[tuple[int, Any]]) -> None:
    references = References(plan(concurrency=1), "data")
    references.begin()
    assert queued == []
    assert references.untuned().seconds == 4.0
    assert references.baselines() == {"cores": 1}


def test_what_is_on_record_is_not_trained_again(queued: list[tuple[int, Any]]) -> None:
    scores = TestScores(accuracy=0.5, macro_f1=0.5, loss=1.0)
    untuned = Reference(hyperparameters=module.untuned_settings(plan(2)), score=0.5, test=scores, seconds=1.0)
    earlier = SweepResult(state="finished", metric="accuracy", untuned=untuned, baselines={"linear": scores})
    references = References(plan(concurrency=2), "data", earlier)
    references.begin()
    assert (references.want_untuned, references.want_baselines, queued) == (False, False, [])
