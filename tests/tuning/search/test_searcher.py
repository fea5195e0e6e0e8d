"""The searcher with real Optuna studies on SQLite, asked and told as Ray would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from lorasweep.search_spaces.space import SearchSpace, Space, load_space
from lorasweep.training.settings import Hyperparameters, Metric
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.reported import DISK_FULL, ERROR, OBJECTIVE, RUNG, SCORE
from lorasweep.tuning.record.trial_records import EvaluationRecord
from lorasweep.tuning.search.searcher import TruthfulOptunaSearch, make_searcher
from lorasweep.tuning.search.study import START, Unfinished, create_study

SPACE = SearchSpace.from_dict(
    {
        "start": {"rank": 8, "learning_rate": 1e-3},
        "rank": {"choice": [4, 8, 16]},
        "learning_rate": {"loguniform": [1e-4, 1e-2]},
        "batch_size": 16,
    },
    "small",
)
FUNCTION = """
def space(trial):
    rank = trial.suggest_categorical("rank", [4, 8])
    return {"alpha": rank * trial.suggest_int("_ratio", 1, 3)}
"""
RUNGS = 3


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A sweep's folder, in which a study may be made."""
    folder = SweepFolder(tmp_path, "demo")
    folder.path.mkdir(parents=True)
    return folder


def searcher_of(
    folder: SweepFolder,
    space: Space = SPACE,
    metric: Metric = "accuracy",
    unfinished: Sequence[Unfinished] = (),
    may_start: Callable[[], bool] = lambda: True,
    early_end: int | None = None,
) -> TruthfulOptunaSearch:
    """A new searcher on the folder's study, which is made if there is none."""
    if not (folder.path / "study.db").is_file():
        create_study(folder.study_url, folder.name, metric, space.start_points())
    return make_searcher(
        space,
        SearchSettings(trials=8),
        metric,
        rungs=RUNGS,
        seed=0,
        concurrency=2,
        study_name=folder.name,
        study_url=folder.study_url,
        unfinished=unfinished,
        may_start=may_start,
        early_end=early_end,
    )


def test_no_trial_is_proposed_once_none_may_start(folder: SweepFolder) -> None:
    """Those of an earlier run go on all the same."""
    first = searcher_of(folder)
    config = first.suggest("a")
    assert isinstance(config, dict)
    going_on = Unfinished(0, Hyperparameters(**config["hyperparameters"]))
    over = searcher_of(folder, unfinished=[going_on], may_start=lambda: False)
    config = over.suggest("b")
    assert isinstance(config, dict)
    assert config["number"] == 0
    assert over.suggest("c") == Searcher.FINISHED
    assert len(study_of(folder).trials) == 1


def study_of(folder: SweepFolder) -> optuna.Study:
    """The study as anybody would open it."""
    return optuna.load_study(study_name=folder.name, storage=folder.study_url)


def rung(number: int, score: float, objective: float | None = None) -> dict[str, Any]:
    """A result as Ray hands it on: with entries of its own."""
    judged = score if objective is None else objective
    return {RUNG: number, SCORE: score, OBJECTIVE: judged, "training_iteration": 77, "done": False}


def test_a_trial_that_no_longer_learns_is_complete(folder: SweepFolder) -> None:
    """With its best value: pruned it would count for less than all others. Also one that goes on, to end at once."""
    searcher = searcher_of(folder, early_end=1)
    asked = {key: searcher.suggest(key) for key in ("early", "weak", "late")}
    for key, losses in (("early", [0.4, 0.5]), ("weak", [0.4, 0.3]), ("late", [0.4, 0.5])):
        for number, loss in enumerate(losses, 1):
            searcher.on_trial_result(key, rung(number, 0.6) | {"evaluation/loss": loss})
        if key != "late":
            searcher.on_trial_complete(key, rung(2, 0.6) | {"evaluation/loss": losses[-1]})
    seen = tuple(EvaluationRecord(rung=n, score=0.6, loss=loss) for n, loss in ((1, 0.4), (2, 0.5)))
    late = asked["late"]
    assert isinstance(late, dict)
    going_on = Unfinished(2, Hyperparameters(**late["hyperparameters"]), "c2", seen)
    again = searcher_of(folder, unfinished=[going_on], early_end=1)
    assert isinstance(again.suggest("a"), dict)
    again.on_trial_complete("a", None)
    ends = [(trial.state.name, trial.value) for trial in study_of(folder).trials[:3]]
    assert ends == [("COMPLETE", 0.6), ("PRUNED", 0.6), ("COMPLETE", 0.6)]


# So Optuna warns of a rung that it is told of twice.
@pytest.mark.filterwarnings("error:The reported value is ignored")
def test_the_study_tells_how_each_trial_ended(folder: SweepFolder) -> None:
    """COMPLETE with the best, PRUNED with the last rung, FAIL; none stays RUNNING."""
    searcher = searcher_of(folder)
    asked = {key: searcher.suggest(key) for key in ("full", "weak", "broke", "dead", "late")}
    for key, scores in (("full", [0.3, 0.6, 0.6]), ("weak", [0.1, 0.2]), ("dead", [0.4]), ("late", [0.5])):
        # Ray keeps the result that ends a trial from the searcher's `on_trial_result`.
        for number, score in enumerate(scores[:-1], 1):
            searcher.on_trial_result(key, rung(number, score))
            searcher.on_trial_result(key, rung(number, score))
        error = {"dead": {"error": True}, "late": {}}.get(key, {})
        last = rung(len(scores), scores[-1])
        searcher.on_trial_complete(key, last | ({ERROR: "not finite"} if key == "late" else {}), **error)
    searcher.on_trial_result("broke", {ERROR: "no such module", RUNG: 0})
    searcher.on_trial_complete("broke", {ERROR: "no such module", RUNG: 0})
    searcher.on_trial_complete("full", rung(3, 0.9))  # told already: nothing changes

    trials = study_of(folder).trials
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.FAIL]
    assert [trial.state for trial in trials] == states
    assert trials[0].value == 0.6
    assert trials[0].intermediate_values == {1: 0.3, 2: 0.6, 3: 0.6}
    assert trials[1].intermediate_values == {1: 0.1, 2: 0.2}
    assert study_of(folder).best_trial.number == 0
    for trial, config in zip(trials, asked.values(), strict=True):
        assert config is not None
        assert config["number"] == trial.number
        settings = Hyperparameters(**config["hyperparameters"])
        assert {name: getattr(settings, name) for name in trial.params} == trial.params
        assert settings.batch_size == 16
    assert trials[0].params == {"rank": 8, "learning_rate": 1e-3}, "the start point goes first"
    assert trials[1].params["learning_rate"] != 1e-3


def test_a_loss_is_minimised(folder: SweepFolder) -> None:
    """The best trial of a study of losses is the lowest."""
    searcher = searcher_of(folder, metric="loss")
    for key, loss in (("a", 0.9), ("b", 0.2), ("c", 0.5)):
        searcher.suggest(key)
        searcher.on_trial_complete(key, rung(RUNGS, loss))
    assert study_of(folder).best_trial.number == 1


def test_the_study_optimises_the_objective_and_notes_the_metric(folder: SweepFolder) -> None:
    """Also where a trial goes on, is stopped, or fails; and the starts come first, by their places."""
    starts = [{"rank": rank, "learning_rate": 1e-3} for rank in (16, 4)]
    create_study(folder.study_url, folder.name, "loss", starts, metric="accuracy")
    searcher = searcher_of(folder, metric="loss")
    configs = [searcher.suggest(key) for key in ("full", "weak", "broke")]
    assert [config and config["start"] for config in configs] == [1, 2, None]
    assert [config and config["hyperparameters"]["rank"] for config in configs][:2] == [16, 4]
    for number, score, loss in ((1, 0.5, 0.9), (2, 0.5, 0.7), (3, 0.6, 0.7)):
        searcher.on_trial_result("full", rung(number, score, loss))
    searcher.on_trial_complete("full", rung(3, 0.6, 0.7))
    searcher.on_trial_complete("weak", rung(1, 0.4, 1.1))
    searcher.on_trial_result("broke", rung(1, 0.3, 1.2))
    searcher.on_trial_complete("broke", {ERROR: "not finite", RUNG: 0})
    study = study_of(folder)
    assert (study.direction.name, study.metric_names) == ("MINIMIZE", ["validation loss"])
    assert study.user_attrs["lorasweep.objective"] == "loss"
    assert study.user_attrs["lorasweep.metric"] == "accuracy"
    assert study.trials[0].value == 0.7
    assert study.trials[0].intermediate_values == {1: 0.9, 2: 0.7, 3: 0.7}
    assert study.trials[1].intermediate_values == {1: 1.1}
    assert [trial.user_attrs.get("accuracy") for trial in study.trials] == [0.6, 0.4, 0.3]
    assert [trial.user_attrs.get(START) for trial in study.trials] == [1, 2, None]
    # Killed and resumed: its record brings both.
    searcher.suggest("late")
    evaluations = tuple(EvaluationRecord(rung=r, score=0.55, objective=0.75) for r in (1, 2, 3))
    again = searcher_of(
        folder, metric="loss", unfinished=[Unfinished(3, Hyperparameters(), "rung-3", evaluations, start=2)]
    )
    config = again.suggest("again")
    assert config is not None
    assert (config["start"], config["scores"]) == (2, [0.75] * 3)
    again.on_trial_complete("again", {"done": True})
    late = study_of(folder).trials[3]
    assert (late.value, late.user_attrs["accuracy"]) == (0.75, 0.55)


# A rung that is done again: Optuna keeps what it heard first.
@pytest.mark.filterwarnings("ignore:The reported value is ignored")
def test_a_resumed_sweep_goes_on_with_its_unfinished_trials_first(folder: SweepFolder) -> None:
    """Under their own numbers, with nothing reported twice, and without a second start point."""
    before = searcher_of(folder)
    configs = [before.suggest(key) for key in ("a", "b", "c", "d")]
    before.on_trial_complete("a", rung(1, 0.3))
    before.on_trial_result("b", rung(1, 0.4))
    before.on_trial_result("b", rung(2, 0.5))
    before.on_trial_result("d", rung(1, 0.1))
    before.on_trial_result("d", rung(2, 0.1))
    before.on_trial_result("d", rung(3, 0.2))

    def unfinished(number: int, checkpoint: str | None, *scores: float) -> Unfinished:
        config = configs[number]
        assert config is not None
        evaluations = tuple(EvaluationRecord(rung=rung, score=score) for rung, score in enumerate(scores, 1))
        return Unfinished(number, Hyperparameters(**config["hyperparameters"]), checkpoint, evaluations)

    # Of trial 1 Optuna has heard a rung more than there is a checkpoint for; trial 2 had not begun;
    # trial 3 was through, but had not been told to have ended.
    waiting = [unfinished(1, "rung-1", 0.4), unfinished(2, None), unfinished(3, "rung-3", 0.1, 0.1, 0.2)]
    after = searcher_of(folder, unfinished=waiting)
    again = [after.suggest(key) for key in ("x", "y", "z")]
    assert [config and config["number"] for config in again] == [1, 2, 3]
    assert again[0] is not None
    assert again[0]["checkpoint"] == "rung-1"
    assert again[0]["scores"] == [0.4]
    assert again[0]["evaluations"] == [EvaluationRecord(rung=1, score=0.4).model_dump()]
    assert configs[1] is not None
    assert again[0]["hyperparameters"] == configs[1]["hyperparameters"]
    after.on_trial_result("x", rung(2, 0.55))
    after.on_trial_complete("x", rung(3, 0.7))
    after.on_trial_complete("y", rung(1, 0.2))
    after.on_trial_complete("z", {"done": True})  # there was nothing left to report
    new = after.suggest("new")
    assert new is not None
    assert new["number"] == 4
    after.on_trial_complete("new", rung(3, 0.6))

    trials = study_of(folder).trials
    complete, pruned = TrialState.COMPLETE, TrialState.PRUNED
    assert [trial.state for trial in trials] == [pruned, complete, pruned, complete, complete]
    assert [trial.value for trial in trials][1:4:2] == [0.7, 0.2]
    assert sorted(trials[1].intermediate_values) == [1, 2, 3]
    starts = [trial.number for trial in trials if trial.params == {"rank": 8, "learning_rate": 1e-3}]
    assert starts == [0]


def test_a_full_disk_is_no_trials_fault(folder: SweepFolder) -> None:
    """It is not told as failed: it goes on when the sweep does."""
    searcher = searcher_of(folder)
    searcher.suggest("a")
    searcher.on_trial_result("a", rung(1, 0.4))
    searcher.on_trial_complete("a", {ERROR: f"{DISK_FULL}: some/file", RUNG: 0})
    assert [trial.state for trial in study_of(folder).trials] == [TrialState.RUNNING]


def test_a_function_is_searched_and_its_own_values_arrive(folder: SweepFolder, tmp_path: Path) -> None:
    """What the function works out is in the settings; its helper is in the study alone."""
    file = tmp_path / "spaces.py"
    file.write_text(FUNCTION)
    searcher = searcher_of(folder, load_space(f"{file}:space"))
    for number in range(4):
        config = searcher.suggest(str(number))
        assert config is not None
        params = study_of(folder).trials[number].params
        assert set(params) == {"rank", "_ratio"}
        assert config["hyperparameters"]["alpha"] == params["rank"] * params["_ratio"]
        assert "_ratio" not in config["hyperparameters"]
        searcher.on_trial_complete(str(number), rung(3, number / 10))
    assert study_of(folder).best_trial.number == 3
