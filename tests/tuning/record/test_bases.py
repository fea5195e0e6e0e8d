"""The base models of a sweep's trials, by the best of each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.bases import base_entry, base_name, base_summaries
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials


def trial(number: int, score: float | None, base: str | None, **more: Any) -> TrialRecord:
    evaluations = [{"rung": 1, "accuracy": score, "loss": 1.0, "macro_f1": 0.5, "samples_per_second": 50.0}]
    return TrialRecord.model_validate(
        {
            "id": f"t{number:03d}",
            "number": number,
            "state": "completed",
            "hyperparameters": Hyperparameters(base_model=base, **more.pop("settings", {})),
            "score": score,
            "trainable_parameters": 250_000,
            "evaluations": evaluations if score is not None else [],
        }
        | more
    )


def sweep(
    trials: list[TrialRecord], bases: dict[str, Any], latency_ms: dict[str, float] | None = None
) -> Any:
    plan = {"bases": bases, "base_model": {"hub_id": "own"}}
    ranked = lambda: rank_trials(trials, "accuracy")  # noqa: E731
    config = SimpleNamespace(base_model="/models/small")
    result = SimpleNamespace(latency_ms=latency_ms) if latency_ms else None
    return SimpleNamespace(
        plan=plan, trials=trials, ranked=ranked, config=config, metric="accuracy", result=result
    )


BASES = {
    "/models/small": {"parameters": 1_000_000},
    "a/large": {"parameters": 9_000_000, "hub_id": "a/large"},
}


def test_the_best_of_each_with_its_size_and_speed() -> None:
    trials = [
        trial(0, 0.7, None),
        trial(1, 0.8, "/models/small"),
        trial(2, 0.9, "a/large", settings={"method": "full"}),
    ]
    large, small = base_summaries(sweep(trials, BASES, {"/models/small": 4.5}))
    assert (small.latency_ms, large.latency_ms) == (4.5, None)
    assert (large.name, large.best, large.trials, large.score) == ("a/large", "t002", 1, 0.9)
    assert (small.label, small.best, small.trials) == ("small", "t001", 2), "None is the sweep's own"
    assert (large.adapter_mb, large.merged_mb) == (36.0, 36.0), "all of it is trained"
    assert (small.adapter_mb, small.merged_mb, small.samples_per_second) == (1.0, 4.0, 50.0)


def test_one_without_a_score_comes_last_and_one_for_all_is_no_table() -> None:
    found = base_summaries(sweep([trial(0, None, None), trial(1, 0.2, "a/large")], BASES))
    assert [(base.name, base.best) for base in found] == [("a/large", "t001"), ("/models/small", None)]
    assert base_summaries(sweep([trial(0, 0.5, None)], {})) == []


def test_what_is_known_of_a_trials_base_model() -> None:
    here = sweep([], BASES)
    large, own = Hyperparameters(base_model="a/large"), Hyperparameters()
    assert (base_name(here, large), base_name(here, own)) == ("a/large", "/models/small")
    assert (base_entry(here, large)["hub_id"], base_entry(here, own)["hub_id"]) == ("a/large", "own")
