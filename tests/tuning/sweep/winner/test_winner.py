"""The end of a sweep where something fails: what is done stays, and one line says what is missing."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from lorasweep.training.errors import TrainingError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.predictions import TEST_FILE
from lorasweep.tuning.record.results import Gain, SweepResult
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord
from lorasweep.tuning.sweep.winner import confirm as confirming
from lorasweep.tuning.sweep.winner import references
from lorasweep.tuning.sweep.winner import winner as ending
from lorasweep.tuning.sweep.winner.after_trials import CheckpointError, TestedClassifier
from lorasweep.tuning.trials.shares import Resources

LABELS = np.array([0, 1, 0, 1])
RIGHT = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]], dtype=np.float32)
WRONG = RIGHT[::-1].copy()
TRIALS = [
    TrialRecord(id=f"t{number:03d}", number=number, state="completed", score=score, checkpoint=f"c{number}")
    for number, score in enumerate((0.6, 0.9, 0.8))
]


class Place:
    """A sweep whose trials have ended, and which trainings after them fail: function or checkpoint → error."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = SweepFolder(path, "demo")
        self.errors: dict[str, Exception] = {}
        self.done: list[str] = []
        config = SweepConfig.model_validate({"name": "demo", "compare_untuned": True})
        self.folder.create(config)
        test = SimpleNamespace(labels=LABELS)
        dataset = SimpleNamespace(
            train="rows", test=test, label_names=("no", "yes"), original_names=(), multi_label=False
        )
        self.plan: Any = SimpleNamespace(config=config, dataset=dataset, target_modules={}, bases={})
        self.plan.resources = Resources(2, 0, 1, 0, 2)
        for module in (ending, references):
            monkeypatch.setattr(module, "run_alone", self._run)
        for module in (ending, confirming, references):
            monkeypatch.setattr(module, "trial_setup", lambda plan, resources: None)

    def _run(self, address: None, resources: Resources, function: Any, *arguments: Any) -> Any:
        known = {
            "predict_test": lambda: (WRONG if key == "c0" else RIGHT, {"weights": b"w"}),
            "test_baselines": lambda: {"majority class": RIGHT},
            "train_reference": lambda: TestedClassifier(RIGHT, 0.5, 1.0),
        }
        name = function.__name__
        key = arguments[1] if name == "predict_test" else name
        if key in self.errors:
            raise self.errors[key]
        self.done.append(key)
        return known[name]()

    def end(self, earlier: SweepResult | None = None, trials: list[TrialRecord] = TRIALS) -> SweepResult:
        """The result, with what an earlier one has."""
        *_, fields = ending.choose_winner(self.plan, self.folder, None, trials, lambda text: None, earlier)
        return SweepResult(state="finished", metric="accuracy", **fields)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_a_comparison_that_fails_is_left_out_and_done_later(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """The sweep ends without it; resumed, it does nothing else again."""
    place.errors["train_reference"] = RuntimeError("out of memory\nwith much below")
    with caplog.at_level(logging.WARNING, "lorasweep"):
        result = place.end()
    assert result.winner is not None
    assert (result.winner.id, result.untuned) == ("t001", None)
    step = "training the untuned settings for comparison"
    assert result.missing == {step: "RuntimeError: out of memory"}
    assert [record.getMessage() for record in caplog.records] == [
        f"{step} failed (RuntimeError: out of memory); the sweep goes on without it, and later tries it again: "
        f"lorasweep resume demo --mlruns {place.folder.mlruns}"
    ]
    assert place.done == ["c1", "test_baselines"]
    place.errors.clear()
    # Interrupted on the way, it keeps what it has.
    steps = ending.choose_winner(place.plan, place.folder, None, TRIALS, lambda text: None, result)
    assert next(steps)["baselines"] == result.baselines
    again = place.end(result)
    assert place.done == ["c1", "test_baselines", "train_reference"]
    assert again.untuned is not None
    assert (again.winner, again.baselines, again.missing) == (result.winner, result.baselines, {})


def test_a_winner_whose_checkpoint_is_lost_gives_way_to_the_next_best(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.errors["c1"] = CheckpointError("c1: its weights cannot be read (No such file)")
    with caplog.at_level(logging.WARNING, "lorasweep"):
        result = place.end()
    assert result.winner is not None
    assert result.winner.id == "t002"
    assert result.missing == {
        "scoring t001 on the test split": "c1: its weights cannot be read (No such file)"
    }
    assert "the next best trial is taken" in caplog.text
    # Put back, it wins; the test scores that were looked at stay on record.
    place.errors.clear()
    again = place.end(result)
    assert again.winner is not None
    assert (again.winner.id, [entry.id for entry in again.also_tested]) == ("t001", ["t002"])
    place.errors |= {f"c{number}": CheckpointError("gone") for number in range(3)}
    (place.folder.winner / TEST_FILE).unlink()
    with pytest.raises(
        TrainingError, match=r"^sweep demo: no trial has a checkpoint left .* the first: gone; "
    ):
        place.end(result)


def test_a_trial_that_has_gone_on_is_scored_again(place: Place) -> None:
    """It had failed after it had the best score; tried again, it has other weights."""
    evaluations = tuple(EvaluationRecord(rung=rung, accuracy=0.9, score=0.9) for rung in (1, 2))
    failed = TRIALS[1].model_copy(update={"state": "failed", "best_rung": 1, "evaluations": evaluations[:1]})
    result = place.end(trials=[TRIALS[0], failed])
    assert result.winner is not None
    assert (result.winner.id, result.winner.rung) == ("t001", 1)
    done = len(place.done)
    assert place.end(result, [TRIALS[0], failed]).winner == result.winner
    assert place.done[done:] == []
    more = {"state": "completed", "best_rung": 2, "evaluations": evaluations, "score": 0.95}
    again = place.end(result, [TRIALS[0], failed.model_copy(update=more)])
    assert again.winner is not None
    assert (again.winner.id, again.winner.rung, again.winner.score) == ("t001", 2, 0.95)
    assert place.done[done:] == ["c1"]


def test_a_winner_that_cannot_be_scored_is_told_on_one_line(place: Place) -> None:
    """Another trial would not do better, so it is not asked."""
    place.errors["c1"] = IndexError("index out of range in self")
    with pytest.raises(TrainingError) as told:
        place.end()
    assert str(told.value) == (
        "sweep demo: scoring t001 on the test split failed (IndexError: index out of range in self); the trials "
        f"are on record. Fix that, then: lorasweep resume demo --mlruns {place.folder.mlruns}"
    )
    assert place.done == []
    failed = [trial.model_copy(update={"checkpoint": None, "error": "broke"}) for trial in TRIALS]
    with pytest.raises(
        TrainingError, match=r"all 3 trials failed; the first: broke; fix that, then: lorasweep re"
    ):
        place.end(trials=failed)


def test_a_trial_that_cannot_be_confirmed_is_left_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores that there are stay; the next time only the missing one is trained."""
    place.plan.config = place.plan.config.model_copy(
        update={"choice": place.plan.config.choice.model_copy(update={"confirm": "2x2"})}
    )
    trained: list[tuple[int, int]] = []
    broken = {(1, 2)}

    def train(
        resources: Resources, function: Any, hyperparameters: Any, seed: int, *_: Any
    ) -> SimpleNamespace:
        task = (hyperparameters.rank, seed)
        return SimpleNamespace(task=task, result=lambda: get(task))

    def get(task: tuple[int, int]) -> float:
        if task in broken:
            raise TrainingError("the loss is not finite")
        trained.append(task)
        return 0.5 + task[0] / 10

    monkeypatch.setattr(confirming, "RemoteCall", train)
    monkeypatch.setattr(ray, "wait", lambda tasks: (tasks[:1], tasks[1:]))
    trials = [
        trial.model_copy(
            update={"hyperparameters": trial.hyperparameters.model_copy(update={"rank": trial.number})}
        )
        for trial in TRIALS
    ]
    result = place.end(trials=trials)
    assert result.winner is not None
    assert (result.winner.id, [entry.id for entry in result.confirmed]) == ("t002", ["t002"])
    assert result.missing == {"confirming t001 on seed 2": "the loss is not finite"}
    assert trained == [(1, 1), (2, 1), (2, 2)]
    broken.clear()
    again = place.end(result, trials)
    assert [entry.id for entry in again.confirmed] == ["t002", "t001"]
    assert trained[3:] == [(1, 2)]
    assert again.missing == {}


STARTED = [TRIALS[0].model_copy(update={"start": 1}), *TRIALS[1:]]


def test_the_known_good_start_stands_beside_the_winner(place: Place) -> None:
    """Scored on the same rows and told apart by an interval, as the untuned settings are; not predicted again."""
    result = place.end(trials=STARTED)
    assert result.start is not None
    assert (result.start.id, result.start.score, result.start.test.accuracy) == ("t000", 0.6, 0.0)
    assert result.over_start == Gain(difference=1.0, interval=(1.0, 1.0))
    assert result.over_untuned == Gain(difference=0.0, interval=(0.0, 0.0))
    assert place.done == ["c1", "c0", "test_baselines", "train_reference"]
    again = place.end(result, STARTED)
    assert place.done[4:] == []
    assert (again.start, again.over_start, again.over_untuned) == (
        result.start,
        result.over_start,
        result.over_untuned,
    )
    # Another winner, as of an extended sweep, is compared with what was predicted before.
    more = [*STARTED, TRIALS[1].model_copy(update={"id": "t003", "number": 3, "score": 0.95})]
    longer = place.end(result, more)
    assert place.done[4:] == ["c1"]
    assert longer.winner is not None
    assert (longer.winner.id, longer.start, longer.over_start) == ("t003", result.start, result.over_start)


def test_a_start_that_has_won_is_not_predicted_twice(place: Place) -> None:
    best = [TRIALS[0], TRIALS[1].model_copy(update={"start": 1}), TRIALS[2]]
    result = place.end(trials=best)
    assert result.winner is not None
    assert result.start is not None
    assert (result.start.id, result.start.test, result.over_start) == ("t001", result.winner.test, None)
    assert place.done == ["c1", "test_baselines", "train_reference"]


def test_a_start_whose_checkpoint_is_lost_is_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.errors["c0"] = CheckpointError("c0: gone")
    with caplog.at_level(logging.WARNING, "lorasweep"):
        result = place.end(trials=STARTED)
    assert (result.start, result.over_start) == (None, None)
    assert result.missing == {"scoring the known-good start": "c0: gone"}
    assert "scoring the known-good start failed (c0: gone); the sweep goes on without it" in caplog.text
    assert result.over_untuned is not None
    # A sweep whose space has no start has no such row, and misses nothing.
    place.errors.clear()
    plain = place.end()
    assert (plain.start, plain.over_start, plain.missing) == (None, None, {})
    failed = STARTED[0].model_copy(update={"state": "failed", "score": None, "error": "broke"})
    without = place.end(trials=[failed, *STARTED[1:]])
    assert without.missing == {"scoring the known-good start": "t000 has no score: broke"}


def test_trials_within_noise_are_named(place: Place) -> None:
    """By their standard errors here: there are no outcomes of single rows."""
    trials = [
        trial.model_copy(
            update={"best_rung": 1, "evaluations": (EvaluationRecord(rung=1, standard_error=0.04),)}
        )
        for trial in TRIALS
    ]
    assert place.end(trials=trials).near == ("t002",)
    assert place.end().near == ()
