"""Which trials a round runs, and which the winner is chosen among. Real rounds: `test_finalists.py`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.errors import SweepStoppedError
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SearchSettings, SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord
from lorasweep.tuning.search.limits import Limits
from lorasweep.tuning.search.study import create_study, open_study
from lorasweep.tuning.sweep import rounds
from lorasweep.tuning.sweep.estimate import RoundLimits
from lorasweep.tuning.sweep.finalists import finalist_settings, finalists_to_train

SEARCH = [
    TrialRecord(
        id=f"t00{number}",
        number=number,
        state="completed",
        hyperparameters=Hyperparameters(rank=number + 1),
        score=score,
        start=1 if number == 0 else None,
        searched=("rank",),
    )
    for number, score in enumerate((0.2, 0.9, 0.8))
]


def limits_of(over: str = "") -> RoundLimits:
    """Limits of both rounds: none, or those of a search or of finalists whose time is over."""

    def limits(name: str) -> Limits:
        return Limits(
            SearchSettings(max_minutes=1 if name == over else None),
            "accuracy",
            rungs=6,
            usual=2.0,
            rows=10,
            spent=lambda: 61.0,
            after=lambda rung: 0.0,
            reason="time" if name == over else None,
        )

    return RoundLimits(limits("search"), limits("finalists"))


def last_of(number: int, state: str = "completed", **more: Any) -> TrialRecord:
    """A finalist of one of the search's trials."""
    origin = SEARCH[number]
    return origin.model_copy(
        update={"id": f"{origin.id}-full", "finalist_of": origin.id, "state": state, **more}
    )


@pytest.fixture
def plan() -> Any:
    """What is read of a plan: three trials on 12 of 48 rows, of which the best and the start become finalists."""
    search = {"trials": 3, "proxy": 0.25, "finalists": 1}
    part = SimpleNamespace(train="x" * 12)
    return SimpleNamespace(
        config=SweepConfig.model_validate({"name": "demo", "search": search}),
        part=part,
        search_data=part,
        encoded=SimpleNamespace(train="x" * 48),
        space=SearchSpace.from_dict({"rank": {"choice": [1, 2, 3, 4]}}, "small"),
    )


def test_finalists_that_are_missing_or_have_not_ended(plan: Any) -> None:
    """Those that began go on from their checkpoint, though the search has better ones by now; ended ones stay."""
    assert [(config["id"], config["start"]) for config in finalists_to_train(plan, SEARCH)] == [
        ("t001-full", None),
        ("t000-full", 1),
    ]
    evaluations = (EvaluationRecord(rung=1, score=0.5),)
    begun = last_of(2, "running", last_checkpoint="here", evaluations=evaluations)
    configs = finalists_to_train(plan, [*SEARCH, last_of(1), begun])
    assert [config["id"] for config in configs] == ["t002-full", "t000-full"]
    assert configs[0]["checkpoint"] == "here"
    assert configs[0]["evaluations"] == [evaluations[0].model_dump()]
    assert configs[0]["finalist_of"] == "t002"
    assert configs[1]["hyperparameters"] == SEARCH[0].hyperparameters.model_dump()
    assert finalists_to_train(plan, [*SEARCH, last_of(1), last_of(0, "failed")]) == []


def test_a_finalist_has_the_settings_of_its_trial_and_a_rate_for_more_steps() -> None:
    """A rate that was not searched stays, and so does the known-good start."""
    assert finalist_settings(SEARCH[1], 6, 48) == SEARCH[1].hyperparameters
    searched = SEARCH[1].model_copy(update={"searched": ("rank", "learning_rate")})
    found = finalist_settings(searched, 6, 48)
    assert found.learning_rate == pytest.approx(searched.hyperparameters.learning_rate / 2)
    same = {"learning_rate": searched.hyperparameters.learning_rate}
    assert found.model_copy(update=same) == searched.hyperparameters
    assert finalist_settings(searched, 48, 48) == searched.hyperparameters
    assert finalist_settings(searched.model_copy(update={"start": 2}), 6, 48) == found
    start = searched.model_copy(update={"start": 1})
    assert finalist_settings(start, 6, 48) == start.hyperparameters


def test_the_winner_is_one_of_the_finalists(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And there is none before all of both rounds have ended."""
    folder, listener, calls = Any, SweepListener(), []

    def run(past: list[TrialRecord], search: list[TrialRecord], last: list[TrialRecord]) -> list[str]:
        calls.clear()

        def searching(*arguments: Any) -> list[TrialRecord]:
            calls.append("search")
            return search

        def training(*arguments: Any) -> list[TrialRecord]:
            calls.append("finalists")
            return [*search, *last]

        monkeypatch.setattr(rounds, "run_search", searching)
        monkeypatch.setattr(rounds, "run_finalists", training)
        trials = rounds.run_trials(plan, folder, past, [], listener, lambda: None, limits)  # type: ignore[arg-type]
        return [trial.id for trial in trials]

    limits = limits_of()
    assert run([], SEARCH, [last_of(1), last_of(0, "failed")]) == ["t001-full", "t000-full"]
    assert calls == ["search", "finalists"]
    assert run([], SEARCH, [last_of(1), last_of(0, "running")]) == []
    assert run([], SEARCH[:2], []) == []
    assert calls == ["search"]
    assert run([], [*SEARCH[:2], SEARCH[2].model_copy(update={"state": "running"})], []) == []
    assert calls == ["search"]
    # Finalists of an earlier run are not counted as trials of the search.
    assert run([], [*SEARCH[:2], last_of(1)], []) == []
    # Its time was over before it had all trials; those of the search that run have still to end.
    limits = limits_of(over="search")
    assert run([], SEARCH[:2], [last_of(1), last_of(0)]) == ["t001-full", "t000-full"]
    assert run([], [SEARCH[1].model_copy(update={"state": "running"})], []) == []
    # Stopped before all of them had begun, as by Ctrl-C.
    limits = limits_of()
    assert run([], SEARCH, []) == []
    assert run([], SEARCH, [last_of(1)]) == []
    limits = limits_of(over="finalists")
    assert run([], SEARCH, [last_of(1)]) == ["t001-full"]
    limits = limits_of()
    # No trial has a score: whoever chooses among them says so.
    without = [trial.model_copy(update={"state": "failed", "score": None}) for trial in SEARCH]
    assert run([], without, []) == ["t000", "t001", "t002"]
    plan.part = None
    assert run([], SEARCH, []) == ["t000", "t001", "t002"]
    assert calls == ["search"]


def test_a_finalist_that_failed_is_tried_again(plan: Any, tmp_path: Path) -> None:
    """Optuna's study knows nothing of it, and stays as it is."""
    folder = SweepFolder(tmp_path, "demo")
    folder.create(plan.config)
    create_study(folder.study_url, "demo", "accuracy", [{}])
    (checkpoint := tmp_path / "checkpoint").mkdir()
    kept = last_of(0, "failed", error="no memory", ended=9.0, last_checkpoint=str(checkpoint))
    lost = last_of(1, "failed", error="no memory", last_checkpoint=str(tmp_path / "gone"))
    other = last_of(2, "failed", error="no memory")
    for record in (kept, lost, other):
        folder.write_trial(record)
    records, unfinished = rounds.reconcile_records(plan, folder, {"t000-full", "t001-full"}, limits_of())
    assert unfinished == []
    assert records == folder.trials()
    assert [(record.state, record.error, record.last_checkpoint) for record in records] == [
        ("running", None, str(checkpoint)),
        ("running", None, None),
        ("failed", "no memory", None),
    ]
    assert records[0].notes == ("tried again after it failed: no memory",)
    assert records[0].ended is None


@pytest.mark.parametrize("over", ["", "search", "finalists"])
def test_trials_that_were_left_end_where_they_stand_if_the_time_is_over(
    over: str, plan: Any, tmp_path: Path
) -> None:
    """Those of the round whose time it is, unless they have no score yet: they go on to their first rung."""
    folder = SweepFolder(tmp_path, "demo")
    folder.create(plan.config)
    create_study(folder.study_url, "demo", "accuracy", [{}, {}])
    study = open_study(folder.study_url, "demo")
    evaluations = (EvaluationRecord(rung=1, score=0.5, accuracy=0.5),)
    for number in range(2):
        plan.space.suggest(study.ask())
        record = SEARCH[number].model_copy(update={"state": "running"})
        folder.write_trial(record.model_copy(update={"evaluations": () if number else evaluations}))
    folder.write_trial(last_of(0, "running", evaluations=evaluations))
    records, unfinished = rounds.reconcile_records(plan, folder, (), limits_of(over))
    assert records == folder.trials()
    ends = {record.id: record.stopped_by for record in records if record.state == "stopped"}
    assert ends == {"": {}, "search": {"t000": "time"}, "finalists": {"t000-full": "time"}}[over]
    assert [trial.number for trial in unfinished] == ([1] if over == "search" else [0, 1])
    states = [trial.state.name for trial in study.get_trials()]
    assert states == ["PRUNED" if over == "search" else "RUNNING", "RUNNING"]


@pytest.mark.parametrize(
    ("error", "reason", "state", "started", "ends"),
    [
        # Ray's table of results, which it reads from the storage when all is done.
        (ValueError("No experiment snapshot file"), None, "completed", True, None),
        (OSError("Input/output error"), None, "completed", True, None),
        (OSError("Input/output error"), "failure of node a", "running", True, None),
        (OSError("Input/output error"), None, "running", True, SweepStoppedError),
        (OSError("Input/output error"), None, "completed", False, SweepStoppedError),
        (ValueError("a bug"), None, "running", True, ValueError),
        (OSError("No space left on device"), None, "completed", True, OSError),
    ],
)
def test_a_storage_that_is_away_when_ray_ends_costs_no_result(
    error: Exception,
    reason: str | None,
    state: str,
    started: bool,
    ends: type[Exception] | None,
    tmp_path: Path,
) -> None:
    def fit() -> None:
        raise error

    record = SEARCH[0].model_copy(update={"state": state})
    watch = SimpleNamespace(reason=reason)
    recorder: Any = SimpleNamespace(trials={"t000": record}, all_started=started, watch=watch)
    this: Any = SimpleNamespace(folder=SweepFolder(tmp_path, "demo"), limits=SimpleNamespace(reason=None))
    tuner: Any = SimpleNamespace(fit=fit)
    if ends is None:
        rounds._fit(tuner, recorder, this)
        return
    with pytest.raises(ends) as caught:
        rounds._fit(tuner, recorder, this)
    if ends is SweepStoppedError:
        assert str(caught.value) == (
            "sweep demo: the storage cannot be used (Input/output error); nothing is lost. Mend that, then: "
            + this.folder.command("resume")
        )
