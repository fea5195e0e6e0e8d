"""Studies on SQLite: what a killed driver left brought in line, and proposals that no restart changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters, TrainingSettings
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.reported import SCORE
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.study import (
    attach,
    create_study,
    first_number,
    make_sampler,
    open_study,
    own_number,
    own_trials,
    reconcile,
    start_of,
    starts_of,
    startup_trials,
    try_again,
)

SPACE = SearchSpace.from_dict(
    {"rank": {"choice": [4, 8, 16]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "batch_size": 16}, "small"
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def record(number: int, state: str, *scores: float, **more: Any) -> TrialRecord:
    """A trial's record after these rungs."""
    evaluations = [{"rung": rung, SCORE: score} for rung, score in enumerate(scores, 1)]
    entries = {"id": f"t{number:03d}", "number": number, "state": state, "evaluations": evaluations}
    return TrialRecord.model_validate(entries | {"score": max(scores, default=None)} | more)


def ask(study: optuna.Study) -> optuna.Trial:
    """A proposal, made as the searcher makes it."""
    trial = study.ask()
    SPACE.suggest(trial)
    return trial


@pytest.mark.parametrize("earlier", [0, 2])
def test_study_and_records_are_brought_in_line(url: str, earlier: int) -> None:
    """Whatever only one of the two knows, at whatever moment the driver was killed."""
    old = [
        optuna.trial.create_trial(
            value=0.1, params={"rank": 4, "learning_rate": 1e-3}, distributions=SPACE.distributions()
        )
        for _ in range(earlier)
    ]
    create_study(url, "demo", "accuracy", [], old)
    study = open_study(url, "demo")
    assert first_number(study) == earlier
    trials = [ask(study) for _ in range(8)]
    trials[0].report(0.5, 1)
    study.tell(trials[0], 0.5)
    study.tell(trials[1], state=TrialState.FAIL)
    trials[2].report(0.2, 1)
    study.tell(trials[2], state=TrialState.PRUNED)
    trials[4].report(0.3, 1)
    records = [
        record(0, "running", 0.5),  # Optuna was told that it is complete
        # 1: Optuna was told that it failed, and there is no record of it
        record(2, "stopped", 0.2),  # both know
        record(3, "running", 0.1, settings={"rank": 8}, last_checkpoint="c1"),
        record(4, "stopped", 0.3, 0.4),  # on record, but Optuna was not told, nor of the second rung
        record(5, "completed", 0.3, 0.6, 0.7),
        record(6, "failed", 0.1, error="broke"),
        # 7: a proposal that never became a record
    ]
    settled, unfinished = reconcile(study, SPACE, records)
    assert [(entry.number, entry.state) for entry in settled] == [
        (0, "completed"), (1, "failed"), (2, "stopped"), (3, "running"),
        (4, "stopped"), (5, "completed"), (6, "failed"),
    ]  # fmt: skip
    assert settled[2:] == records[1:]
    assert settled[0].ended
    assert settled[1].error
    assert [(entry.number, entry.checkpoint, entry.scores) for entry in unfinished] == [
        (3, "c1", (0.1,)), (7, None, ()),
    ]  # fmt: skip
    assert unfinished[0].hyperparameters == Hyperparameters(rank=8)
    lost = unfinished[1].hyperparameters
    assert {name: getattr(lost, name) for name in trials[7].params} == trials[7].params
    assert lost.batch_size == 16
    own = open_study(url, "demo").trials[earlier:]
    assert [trial.state.name for trial in own] == [
        "COMPLETE", "FAIL", "PRUNED", "RUNNING", "PRUNED", "COMPLETE", "FAIL", "RUNNING",
    ]  # fmt: skip
    assert own[4].intermediate_values == {1: 0.3, 2: 0.4}
    assert own[5].value == 0.7
    # Nothing more to do: nothing is told twice.
    assert reconcile(study, SPACE, settled)[0] == settled
    assert [trial.state for trial in open_study(url, "demo").trials[earlier:]] == [t.state for t in own]


@pytest.mark.parametrize(("losses", "by"), [((0.4, 0.5), "early_end"), ((0.4, 0.3, 0.5), None)])
def test_a_completed_trial_that_optuna_alone_knows_of_may_have_ended_early(
    url: str, losses: tuple[float, ...], by: str | None
) -> None:
    create_study(url, "demo", "accuracy")
    study = open_study(url, "demo")
    study.tell(ask(study), 0.5)
    running = record(0, "running", *[0.5] * len(losses))
    seen = tuple(
        e.model_copy(update={"loss": loss}) for e, loss in zip(running.evaluations, losses, strict=True)
    )
    running = running.model_copy(update={"evaluations": seen})
    training = TrainingSettings(epochs=3, evaluations_per_epoch=1, early_end=1)
    (ended,), unfinished = reconcile(study, SPACE, [running], training)
    assert (ended.state, ended.stopped_by, unfinished) == ("completed", by, [])


def test_a_trial_that_was_never_asked_for_waits(url: str) -> None:
    create_study(url, "demo", "accuracy", [{"rank": 8, "learning_rate": 1e-3}])
    study = open_study(url, "demo")
    assert reconcile(study, SPACE, []) == ([], [])
    assert ask(study).params == {"rank": 8, "learning_rate": 1e-3}


def test_starts_come_in_order_with_their_places(url: str) -> None:
    """A sweep of fewer trials runs the first ones. Whatever happens to one, its place stays."""
    starts = [{"rank": rank, "learning_rate": 1e-3} for rank in (16, 4, 8)]
    create_study(url, "demo", "loss", starts, metric="accuracy")
    study = open_study(url, "demo")
    assert starts_of(study) == 3
    asked = [ask(study), ask(study)]
    assert [trial.params for trial in asked] == starts[:2]
    assert [start_of(trial) for trial in asked] == [1, 2]
    study.tell(asked[0], state=TrialState.FAIL)
    settled, unfinished = reconcile(study, SPACE, [])
    assert [(entry.number, entry.state, entry.start) for entry in settled] == [(0, "failed", 1)]
    assert [(entry.number, entry.start) for entry in unfinished] == [(1, 2)]
    again, goes_on = try_again(study, SPACE, settled[0])
    assert (again.start, goes_on.start, start_of(own_trials(study)[0])) == (1, 1, 1)
    running = record(1, "running", 0.5, start=2)
    _, unfinished = reconcile(study, SPACE, [again, running])
    assert [(entry.number, entry.start) for entry in unfinished] == [(0, 1), (1, 2)]
    third, proposed = ask(study), ask(study)
    assert (third.params, start_of(third)) == (starts[2], 3)
    assert start_of(proposed) is None


def test_the_study_is_told_the_objective_of_a_trial_that_ended_unheard(url: str) -> None:
    """Records of a sweep that is judged by loss; and what the winner is chosen by is noted beside it."""
    create_study(url, "demo", "loss", metric="accuracy")
    study = open_study(url, "demo")
    ask(study)
    ended = record(0, "completed", 0.5, 0.6, 0.6)
    judged = tuple(e.model_copy(update={"objective": 1 - e.rung / 10}) for e in ended.evaluations)
    ended = ended.model_copy(update={"evaluations": judged})
    assert reconcile(study, SPACE, [ended]) == ([ended], [])
    (trial,) = open_study(url, "demo").trials
    assert trial.value == pytest.approx(0.7)
    assert trial.intermediate_values == pytest.approx({1: 0.9, 2: 0.8, 3: 0.7})
    assert trial.user_attrs["accuracy"] == 0.6


@pytest.mark.parametrize("name", ["50% done", "a%20b?c=d#e {f} é:g@h"])
def test_a_path_is_no_part_of_a_url(name: str, tmp_path: Path) -> None:
    """What means something in a URL, or to Optuna, is escaped: the file lies where it was asked for."""
    folder = SweepFolder(tmp_path / name, "demo")
    folder.path.mkdir(parents=True)
    create_study(folder.study_url, "demo", "accuracy", [])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder.path / "study.db").is_file()
    assert open_study(folder.study_url, "demo").trials == []
    with pytest.raises(SettingsError) as refused:
        open_study(folder.study_url, "other")
    assert str(folder.path / "study.db") in str(refused.value)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_restart_changes_no_proposal(sampler: str, tmp_path: Path) -> None:
    """A process that dies after each trial proposes what one that lives on does; and no setting twice."""
    settings = SearchSettings.model_validate({"sampler": sampler, "trials": 12})

    def proposals(name: str, restart: bool, seed: int) -> list[dict[str, Any]]:
        url = f"sqlite:///{tmp_path / name}"
        create_study(url, "demo", "accuracy", [])
        study = open_study(url, "demo", make_sampler(settings, seed, 1))
        for number in range(12):
            if restart:
                study = open_study(url, "demo", make_sampler(settings, seed, 1))
            trial = ask(study)
            study.tell(trial, (number * 7 % 5) / 10)
        return [trial.params for trial in study.trials]

    lives, dies = proposals("a", False, 0), proposals("b", True, 0)
    assert lives == dies
    rates = [params["learning_rate"] for params in lives]
    assert len(set(rates)) == len(rates)
    assert proposals("c", False, 1) != lives


def test_a_proposal_is_taken_up_by_its_number(url: str) -> None:
    create_study(url, "demo", "loss", [])
    study = open_study(url, "demo")
    params = [ask(study).params for _ in range(3)]
    assert attach(study, 1).params == params[1]
    assert study.direction.name == "MINIMIZE"


def test_a_study_that_is_gone_is_told(url: str) -> None:
    with pytest.raises(SettingsError, match=r"study.db holds no study of this name; restore the file"):
        open_study(url, "demo")


def test_random_trials_before_tpe_proposes() -> None:
    """A quarter, at least those that start at once, at most ten; and one random trial after the starts."""
    asked = ((20, 4), (100, 4), (4, 1), (20, 8), (100, 16))
    assert [startup_trials(*pair) for pair in asked] == [5, 10, 2, 8, 16]
    assert [startup_trials(20, 2, starts) for starts in (0, 1, 4, 5, 8)] == [5, 5, 5, 6, 9]


def test_a_trial_that_goes_on_has_all_its_evaluations_in_the_study(url: str) -> None:
    """Killed between the record of an evaluation and Optuna's: the trial does not reach that rung again."""
    create_study(url, "demo", "accuracy", [], [])
    study = open_study(url, "demo")
    ask(study).report(0.2, 1)
    settings = {"rank": 4, "learning_rate": 1e-3}
    _, unfinished = reconcile(study, SPACE, [record(0, "running", 0.2, 0.3, settings=settings)])
    assert [trial.number for trial in unfinished] == [0]
    assert open_study(url, "demo").trials[0].intermediate_values == {1: 0.2, 2: 0.3}


def test_a_trial_that_failed_is_tried_again_under_its_number(url: str) -> None:
    """Optuna keeps the failure and does not re-open it: the next try is one more trial of the study."""
    old = [
        optuna.trial.create_trial(
            value=0.1, params={"rank": 4, "learning_rate": 1e-3}, distributions=SPACE.distributions()
        )
    ]
    create_study(url, "demo", "accuracy", [], old)
    study = open_study(url, "demo")
    trials = [ask(study) for _ in range(3)]
    trials[1].report(0.2, 1)
    study.tell(trials[0], 0.5)
    study.tell(trials[1], state=TrialState.FAIL)
    study.tell(trials[2], state=TrialState.FAIL)
    settings = trials[1].params
    failed = record(
        1, "failed", 0.2, error="broke", ended=9.0, searched=["rank"], settings=settings, last_checkpoint="c1"
    )
    again, unfinished = try_again(study, SPACE, failed)
    assert (again.state, again.error, again.ended) == ("running", None, None)
    assert again.notes == ("tried again after it failed: broke",)
    assert (again.id, again.evaluations, again.hyperparameters) == (
        "t001",
        failed.evaluations,
        failed.hyperparameters,
    )
    assert (unfinished.number, unfinished.checkpoint, unfinished.scores) == (1, "c1", (0.2,))
    # One that the driver recorded without its settings: Optuna has them.
    lost, _ = try_again(study, SPACE, record(2, "failed", error="the driver died as it failed"))
    assert lost.hyperparameters.learning_rate == trials[2].params["learning_rate"]

    # A new proposal's number in the sweep goes on where the others ended.
    assert own_number(study, ask(study).number) == 3
    assert [trial.state.name for trial in study.trials[1:]] == [
        "COMPLETE", "FAIL", "FAIL", "RUNNING", "RUNNING", "RUNNING",
    ]  # fmt: skip
    study.tell(attach(study, 1), 0.7)
    own = own_trials(open_study(url, "demo"))
    assert list(own) == [0, 1, 2, 3]
    assert (own[1].state, own[1].value, own[1].params) == (TrialState.COMPLETE, 0.7, settings)
    assert own[1].intermediate_values == {1: 0.2}
    # Killed before the record of a try was written: the trial has failed as before.
    settled, unfinished = reconcile(study, SPACE, [record(0, "completed", 0.5), again, record(2, "failed")])
    assert [(entry.number, entry.state) for entry in settled] == [
        (0, "completed"), (1, "completed"), (2, "failed"),
    ]  # fmt: skip
    assert own_trials(open_study(url, "demo"))[2].state == TrialState.FAIL
    assert [trial.number for trial in unfinished] == [3]
