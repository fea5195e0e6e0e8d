"""The known-good start beside the winner: scored once, on the same rows, and told where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lorasweep.training.errors import TrainingError
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.predictions import TEST_FILE
from lorasweep.tuning.record.results import Reference, TestScores, Winner
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.winner.after_trials import score_test
from lorasweep.tuning.sweep.winner.known_start import START, UNTUNED, Comparison

LABELS = np.arange(200) % 2


def logits_of(wrong: int) -> np.ndarray:
    """Predictions with so many rows wrong."""
    predicted = LABELS.copy()
    predicted[:wrong] = 1 - predicted[:wrong]
    return (3 * np.eye(2)[predicted]).astype(np.float32)


def trial(number: int, **more: Any) -> TrialRecord:
    """A trial that has ended; the first is the start."""
    entries = {"score": 0.7 + number / 100, "checkpoint": f"c{number}", "start": None if number else 1}
    known = {"id": f"t{number:03d}", "number": number, "state": "completed"}
    return TrialRecord.model_validate(known | entries | more)


class Place:
    """A sweep's folder whose winner is t002, and what is predicted anew."""

    def __init__(self, path: Path, metric: Any = "accuracy") -> None:
        self.folder = SweepFolder(path, "demo")
        self.predicted: list[str] = []
        self.folder.winner.mkdir(parents=True)
        save_file({"logits": logits_of(20)}, self.folder.winner / TEST_FILE)
        test = score_test(logits_of(20), LABELS)
        interval = {"accuracy": (0.8, 0.95)}
        self.winner = Winner(
            id="t002", score=0.72, hyperparameters=trial(2).hyperparameters, test=test, interval=interval
        )
        self.comparison = Comparison(self.folder, metric, LABELS, self._predict)

    def _predict(self, trial: TrialRecord) -> np.ndarray:
        self.predicted.append(trial.id)
        return logits_of(40)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


TRIALS = [trial(0), trial(1), trial(2)]


def test_the_start_is_scored_like_the_winner(place: Place) -> None:
    start = place.comparison.start(TRIALS, place.winner, None)
    assert start is not None
    assert (start.id, start.score, start.test.accuracy) == ("t000", 0.7, 0.8)
    low, high = start.interval["accuracy"]
    assert low < 0.8 < high
    gain = place.comparison.gain(START)
    assert gain is not None
    assert gain.interval is not None
    assert gain.difference == pytest.approx(0.1)
    # 20 rows that only the winner gets right: 0.1 ± 1.96 · √(0.1 · 0.9 / 200), in steps of half a point.
    assert gain.interval == pytest.approx((0.058, 0.142), abs=0.01)


def test_it_is_predicted_once(place: Place) -> None:
    """Another winner of the extended sweep is compared with the same predictions."""
    start = place.comparison.start(TRIALS, place.winner, None)
    assert place.comparison.start(TRIALS, place.winner, start) == start
    assert place.predicted == ["t000"]
    place.folder.compared(START).write_bytes(b"cut off")
    assert place.comparison.start(TRIALS, place.winner, start) == start
    assert place.predicted == ["t000", "t000"]


def test_a_start_that_won_has_the_winners_numbers(place: Place) -> None:
    winner = place.winner.model_copy(update={"id": "t000", "score": 0.7})
    start = place.comparison.start(TRIALS, winner, None)
    assert start is not None
    assert (start.id, start.test, start.interval) == ("t000", winner.test, winner.interval)
    assert place.predicted == []


def test_without_a_start_there_is_no_row(place: Place) -> None:
    assert place.comparison.start([trial(0, start=None), *TRIALS[1:]], place.winner, None) is None


@pytest.mark.parametrize(
    ("start", "why"),
    [
        ({"checkpoint": None}, "t000 has no checkpoint"),
        ({"score": None, "state": "failed", "error": "broke"}, "t000 has no score: broke"),
        ({"score": None}, "t000 has no score: it was not trained"),
    ],
)
def test_why_a_start_has_no_row(place: Place, start: dict[str, Any], why: str) -> None:
    with pytest.raises(TrainingError) as told:
        place.comparison.start([trial(0, **start), *TRIALS[1:]], place.winner, None)
    assert str(told.value) == why


def test_what_the_winner_adds_to_the_untuned_settings(place: Place) -> None:
    """With an interval where the predictions are kept; an older version kept none."""
    untuned = Reference(
        hyperparameters=trial(0).hyperparameters,
        score=0.5,
        test=score_test(logits_of(100), LABELS),
        seconds=1,
    )
    gain = place.comparison.gain_over(UNTUNED, place.winner, untuned)
    assert (gain.difference, gain.interval) == (pytest.approx(0.4), None)
    place.comparison.store(UNTUNED, logits_of(100))
    with_interval = place.comparison.gain_over(UNTUNED, place.winner, untuned)
    assert with_interval.interval is not None
    assert with_interval.interval[0] < 0.4 < with_interval.interval[1]
    # Of other rows, they tell nothing.
    place.comparison.store(UNTUNED, logits_of(100)[:50])
    assert place.comparison.gain_over(UNTUNED, place.winner, untuned).interval is None


def test_the_difference_is_by_the_sweeps_metric(tmp_path: Path) -> None:
    place = Place(tmp_path, "loss")
    start = place.comparison.start(TRIALS, place.winner, None)
    assert start is not None
    gain = place.comparison.gain_over(START, place.winner, start)
    assert gain.difference == pytest.approx(place.winner.test.loss - start.test.loss)
    assert gain.difference < 0
    assert isinstance(start.test, TestScores)
