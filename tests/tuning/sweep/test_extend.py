"""More trials for a sweep that exists, and an older sweep's results for a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.errors import SettingError, SettingsError
from lorasweep.tuning.record.config import SearchSettings, SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.reported import SCORE
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.study import create_study, open_study
from lorasweep.tuning.sweep.extend import confirmed_config, extended_config, trials_of
from lorasweep.tuning.sweep.warm_start import SOURCE, differences, earlier_trials

BASE = {"rank": {"choice": [4, 8]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "batch_size": 16}
SPACE = SearchSpace.from_dict(BASE, "small")


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A sweep of two scored trials, and one that failed."""
    folder = SweepFolder(tmp_path, "older")
    entries: dict[str, Any] = {"name": "older", "search": {"trials": 3, "space": "small.yaml"}}
    folder.create(SweepConfig.model_validate(entries))
    folder.write_space(SPACE)
    folder.write_plan({"data": {"fingerprint": "abc"}})
    create_study(folder.study_url, "older", "accuracy", [])
    study = open_study(folder.study_url, "older")
    for number, (rank, score) in enumerate(((4, 0.4), (8, 0.6), (4, None))):
        study.enqueue_trial({"rank": rank, "learning_rate": 2e-3})
        trial = study.ask()
        settings = SPACE.suggest(trial)
        if score:
            trial.report(score, 1)
        study.tell(
            trial, score if number == 1 else None, state=[TrialState.PRUNED, None, TrialState.FAIL][number]
        )
        record = {
            "id": f"t00{number}",
            "number": number,
            "state": ["stopped", "completed", "failed"][number],
            "settings": settings,
            "score": score,
        }
        folder.write_trial(TrialRecord.model_validate(record | {"evaluations": [{"rung": 1, SCORE: score}]}))
    return folder


def plan_of(
    space: SearchSpace = SPACE, fingerprint: str = "abc", objective: str | None = None, **training: Any
) -> Any:
    """What is asked of a new sweep's plan."""
    entries = {"name": "newer", "training": training, "search": {"objective": objective}}
    config = SweepConfig.model_validate(entries)
    summary = {"data": {"fingerprint": fingerprint}}
    return SimpleNamespace(space=space, config=config, bases={}, summary=lambda: summary)


def test_more_trials_and_nothing_else(folder: SweepFolder) -> None:
    more = {"search": {"trials": 5}, "name": "older", "choice": {"confirm": "2x2"}, "keep": 2}
    config = extended_config(SweepRecord(folder), more)
    assert config.search.trials == 5
    assert config.choice.confirm == "2x2"
    before = folder.config()
    assert config.model_copy(update={"search": before.search, "choice": before.choice, "keep": 3}) == before


@pytest.mark.parametrize(
    ("trials", "more", "message"),
    [
        (5, {"training": {"epochs": 9}}, "training.epochs: 9: sweep older has 3; leave that out"),
        (5, {"data": {"path": "other.csv"}}, "data.path: 'other.csv': sweep older has None"),
        (
            5,
            {"search": {"trials": 5, "space": "lora_bert"}},
            "search.space: 'lora_bert': sweep older has 'small.yaml'",
        ),
        (5, {"resources": {"storage": "/shared"}}, "resources.storage"),
        (3, {}, "by a sweep of 3 trials; choose another --name, ask for more --trials"),
        (2, {}, "by a sweep of 3 trials"),
    ],
)
def test_another_search_is_refused(
    folder: SweepFolder, trials: int, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        extended_config(SweepRecord(folder), {"search": {"trials": trials}} | more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def in_time(folder: SweepFolder, stopped_by: str | None, **search: Any) -> SweepRecord:
    """The sweep of three trials as one whose search was ended otherwise, after 2.8 minutes."""
    before = folder.config()
    search = {"space": "small.yaml"} | search
    folder.write_config(before.model_copy(update={"search": SearchSettings.model_validate(search)}))
    entries = {"state": "finished", "metric": "accuracy", "seconds": 170, "stopped_by": stopped_by}
    folder.write_result(SweepResult.model_validate(entries))
    return SweepRecord(folder)


def test_more_minutes(folder: SweepFolder) -> None:
    sweep = in_time(folder, "time", max_minutes=3)
    assert trials_of(sweep) == 3
    more = extended_config(sweep, {"search": {"max_minutes": 6}}).search
    assert (more.max_minutes, more.open) == (6, True)
    # A number is run in full, whatever ended the search before.
    more = extended_config(sweep, {"search": {"trials": 5}}).search
    assert (more.trials, more.max_minutes) == (5, None)
    more = extended_config(sweep, {"search": {"trials": 5, "max_minutes": 4}}).search
    assert (more.trials, more.max_minutes) == (5, 4)


def test_more_patience(folder: SweepFolder) -> None:
    sweep = in_time(folder, "patience", trials=9, patience=2)
    more = extended_config(sweep, {"search": {"patience": 4}}).search
    assert (more.trials, more.patience) == (9, 4)
    more = extended_config(sweep, {"search": {"trials": 4}}).search
    assert (more.trials, more.patience) == (4, None)


@pytest.mark.parametrize(
    ("stopped_by", "before", "asked", "message"),
    [
        (
            "time",
            {"max_minutes": 3},
            {"max_minutes": 3},
            "in use, by a sweep of 3 minutes; choose another --name",
        ),
        (None, {"max_minutes": 3}, {"max_minutes": 3}, "ask for more --trials or --max-minutes"),
        ("time", {"max_minutes": 3}, {"trials": 3}, "in use, by a sweep of 3 minutes"),
        (
            "time",
            {"max_minutes": 1},
            {"max_minutes": 2},
            r"max_minutes: 2.0: sweep older has taken 2.8 minutes",
        ),
        (
            "time",
            {"max_minutes": 3, "patience": 3},
            {"patience": 5},
            "ask for more --max-minutes or --trials",
        ),
        ("patience", {"trials": 9, "patience": 3}, {"patience": 2}, "in use, by a sweep of 3 trials"),
        ("patience", {"trials": 9, "patience": 3}, {"trials": 5, "patience": 3}, "--patience 3 ended it"),
        (None, {"trials": 3}, {"max_minutes": 9}, "in use, by a sweep of 3 trials; choose another --name"),
    ],
)
def test_a_search_that_would_end_at_once_is_not_extended(
    folder: SweepFolder, stopped_by: str | None, before: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        extended_config(in_time(folder, stopped_by, **before), {"search": asked})
    assert "\n" not in str(caught.value)


def test_a_sweep_that_runs_is_not_extended(folder: SweepFolder) -> None:
    with folder.lock(), pytest.raises(SettingsError, match="is running"):
        extended_config(SweepRecord(folder), {"search": {"trials": 5}})


def test_older_results_teach_the_sampler(folder: SweepFolder, tmp_path: Path) -> None:
    """All that have a score, as they ended; the best settings come first; the new trials count from 0."""
    trials, start, notes, best = earlier_trials(SweepRecord(folder), plan_of())
    assert [trial.state for trial in trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert [trial.intermediate_values for trial in trials] == [{1: 0.4}, {1: 0.6}]
    assert {trial.user_attrs[SOURCE] for trial in trials} == {"older"}
    assert start == {"rank": 8, "learning_rate": 2e-3}
    assert (notes, best.hyperparameters.rank) == ([], 8)
    url = f"sqlite:///{tmp_path / 'new.db'}"
    create_study(url, "newer", "accuracy", [start], trials)
    study = open_study(url, "newer")
    assert study.best_value == 0.6
    assert study.ask().number == 2


def test_other_data_is_noted(folder: SweepFolder) -> None:
    _, _, notes, _ = earlier_trials(SweepRecord(folder), plan_of(fingerprint="xyz", epochs=7))
    assert notes == ["older had different data, epochs: its scores are used as they are"]


def test_spaces_that_differ_are_refused_by_name(folder: SweepFolder) -> None:
    other = SearchSpace.from_dict(
        BASE | {"rank": {"choice": [4, 8, 16]}, "batch_size": 32, "dropout": 0.1}, "other"
    )
    assert differences(other, SPACE) == [
        "rank (4, 8, 16 here, 4, 8 there)",
        "dropout (0.1 here, 0 there)",
        "batch_size (32 here, 16 there)",
    ]
    with pytest.raises(
        SettingsError, match=r"--warm-start older: the spaces differ in rank .*; use the same"
    ):
        earlier_trials(SweepRecord(folder), plan_of(other))
    # A constant that is written out and one that is left to its default are the same.
    assert differences(SearchSpace.from_dict(BASE | {"dropout": 0.0}, "same"), SPACE) == []


def judged_by_loss(folder: SweepFolder, losses: Sequence[Sequence[float]]) -> None:
    """Put losses and accuracies into the evaluations of the older sweep, as sweeps record them."""
    for trial, values in zip(folder.trials(), losses, strict=False):
        evaluations = [
            {"rung": rung, "loss": loss, "accuracy": trial.score, SCORE: trial.score}
            for rung, loss in enumerate(values, 1)
        ]
        entries = trial.model_dump() | {"evaluations": evaluations}
        folder.write_trial(TrialRecord.model_validate(entries))


def test_a_sweep_is_learnt_from_whatever_it_was_judged_by(folder: SweepFolder) -> None:
    """Each evaluation on record has every metric: the running best of the new objective is taken."""
    judged_by_loss(folder, [[0.5, 0.7], [0.9, 0.8]])
    trials, start, _, best = earlier_trials(SweepRecord(folder), plan_of(objective="loss"))
    assert [trial.intermediate_values for trial in trials] == [{1: 0.5, 2: 0.5}, {1: 0.9, 2: 0.8}]
    assert [trial.value for trial in trials] == [None, 0.8]
    # The sampler is told the loss; the start is the best by the metric.
    assert (best.id, best.score, start["rank"]) == ("t001", 0.6, 8)
    _, start, _, best = earlier_trials(SweepRecord(folder), plan_of(metric="loss"))
    assert (best.id, best.score, start["rank"]) == ("t000", 0.5, 4)


def test_finalists_are_no_trials_of_a_search(folder: SweepFolder) -> None:
    """They repeat a trial on other rows."""
    finalist = folder.trials()[1].model_copy(update={"id": "f001", "number": 3, "finalist_of": "t001"})
    folder.write_trial(finalist.model_copy(update={"score": 0.9}))
    trials, _, _, best = earlier_trials(SweepRecord(folder), plan_of())
    assert (len(trials), best.id) == (2, "t001")


def test_scores_that_an_older_sweep_has_not_recorded_are_refused(folder: SweepFolder) -> None:
    with pytest.raises(
        SettingsError, match=r"older: none of its trials has its validation loss and accuracy on"
    ):
        earlier_trials(SweepRecord(folder), plan_of(objective="loss"))


def test_a_sweep_keeps_its_objective(folder: SweepFolder) -> None:
    """One from before there was any is judged by its metric."""
    record = SweepRecord(folder)
    more = {"trials": 5}
    assert extended_config(record, {"search": more}).objective == "accuracy"
    assert extended_config(record, {"search": more | {"objective": "accuracy"}}).objective == "accuracy"
    with pytest.raises(
        SettingsError, match=r"search.objective: 'loss': sweep older has 'accuracy'; leave that"
    ):
        extended_config(record, {"search": more | {"objective": "loss"}})
    folder.write_config(
        record.config.model_copy(update={"search": SearchSettings(objective="loss", trials=3)})
    )
    assert extended_config(SweepRecord(folder), {"search": more}).objective == "loss"
    with pytest.raises(
        SettingsError, match=r"search.objective: 'accuracy': sweep older has 'loss'; leave that"
    ):
        extended_config(SweepRecord(folder), {"search": more | {"objective": "accuracy"}})


def test_a_sweep_is_confirmed_and_nothing_else_changes(folder: SweepFolder) -> None:
    """A finished one only as far down as checkpoints are kept: a winner without weights is none."""
    record = SweepRecord(folder)
    config = confirmed_config(record, "2x3")
    assert config.choice.confirmed == (2, 3)
    assert config.model_copy(update={"choice": record.config.choice}) == record.config
    with pytest.raises(SettingError, match="write KxS"):
        confirmed_config(record, "3")
    best, other = record.ranked()
    folder.write_trial(best.model_copy(update={"checkpoint": "c"}))
    folder.write_result(SweepResult(state="finished", metric="accuracy"))
    assert confirmed_config(SweepRecord(folder), "1x3").choice.confirm == "1x3"
    with pytest.raises(SettingError) as told:
        confirmed_config(SweepRecord(folder), "2x3")
    assert "'2x3': sweep older keeps the checkpoints of its best 1; use 1x3, or add trials" in str(told.value)
    folder.write_trial(other.model_copy(update={"checkpoint": "d"}))
    # Only two have a score: more cannot be asked of it.
    assert confirmed_config(SweepRecord(folder), "5x3").choice.confirmed == (5, 3)
