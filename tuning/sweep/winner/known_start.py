"""The known-good start, scored like the winner, and what the search added to it and to the untuned settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import load_file, save

from lorasweep.training.errors import TrainingError
from lorasweep.training.scores.noise import bootstrap_intervals, paired_interval
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.set_thresholds import ONE_HALF
from lorasweep.training.settings import Metric
from lorasweep.tuning.record.files import write_bytes
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.predictions import TEST_FILE
from lorasweep.tuning.record.results import Gain, Reference, StartReference, Winner
from lorasweep.tuning.record.starts import start_like
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.winner.after_trials import score_test
from lorasweep.tuning.sweep.winner.thresholds import trial_thresholds

# Names of the files of their test predictions.
START, UNTUNED = "start", "untuned"


@dataclass(frozen=True)
class Comparison:
    """Compares the winner with others on the test split.

    Attributes:
        labels: of the test rows; int, shape (rows,).
        predict: a trial's test logits, shape (rows, classes).
        scorer: scores them.
        rule: by which thresholds of several labels a text are chosen.
    """

    folder: SweepFolder
    metric: Metric
    labels: np.ndarray
    predict: Callable[[TrialRecord], np.ndarray]
    scorer: Scorer = field(default_factory=lambda: Scorer(()))
    rule: str | None = None

    def start(
        self, trials: Sequence[TrialRecord], winner: Winner, earlier: StartReference | None
    ) -> StartReference | None:
        """The start's reference; None where the sweep has no known-good start.

        Where the start has won, the numbers are the winner's. Predictions that are on disk are not made again.

        Raises:
            TrainingError: its trial failed, or was not trained on the winner's rows, or its checkpoint is lost.
        """
        won = next(trial for trial in trials if trial.id == winner.id)
        trial = start_like(trials, won)
        if trial is None:
            return None
        if isinstance(trial, str):
            raise TrainingError(trial)
        if trial.id == winner.id:
            return _reference(trial, winner)
        if earlier is not None and same_weights(earlier, trial) and self.stored(START) is not None:
            return earlier
        if trial.score is None:
            raise TrainingError(f"{trial.id} has no score: {trial.error or 'it was not trained'}")
        if trial.checkpoint is None:
            raise TrainingError(f"{trial.id} has no checkpoint")
        logits, thresholds = self.predict(trial), self._thresholds(trial)
        self.store(START, logits, thresholds)
        scorer = self.scorer.fixed(thresholds)
        tested = {
            "test": score_test(logits, self.labels, scorer),
            "interval": bootstrap_intervals(scorer.outcomes(logits, self.labels), scorer.metrics),
        }
        return _reference(trial, winner.model_copy(update=tested))

    def gain(self, name: str) -> Gain | None:
        """What the winner has over stored predictions; None where a file is missing or does not fit."""
        winner, other = _logits(self.folder.winner / TEST_FILE), self.stored(name)
        if winner is None or other is None or winner.shape != other.shape or len(winner) != len(self.labels):
            return None
        places = self.folder.winner / TEST_FILE, self.folder.compared(name)
        one, another = (
            self.scorer.fixed(_stored_thresholds(place)).outcomes(logits, self.labels)
            for place, logits in zip(places, (winner, other), strict=True)
        )
        difference, low, high = paired_interval(one, another, self.metric)
        return Gain(difference=difference, interval=(low, high))

    def gain_over(self, name: str, winner: Winner, other: Reference | StartReference) -> Gain:
        """The same; without an interval where an older version has kept no predictions."""
        difference = winner.test.by(self.metric) - other.test.by(self.metric)
        return self.gain(name) or Gain(difference=difference)

    def _thresholds(self, trial: TrialRecord) -> tuple[float, ...]:
        """Of several labels a text, by a trial's validation rows; one half each where these are gone."""
        if not self.scorer.several:
            return ()
        found = trial_thresholds(self.folder, trial, self.rule)
        return (ONE_HALF,) * len(self.scorer.label_names) if found is None else found

    def store(self, name: str, logits: np.ndarray, thresholds: Sequence[float] = ()) -> None:
        """Keep test predictions: another winner of the extended sweep is compared with them, too."""
        path = self.folder.compared(name)
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, save(prediction_tensors(logits, thresholds)))

    def stored(self, name: str) -> np.ndarray | None:
        """Test predictions that were kept; None where they are missing, broken, or not of these rows."""
        logits = _logits(self.folder.compared(name))
        return logits if logits is not None and len(logits) == len(self.labels) else None


def same_weights(tested: Winner | StartReference, trial: TrialRecord) -> bool:
    """Whether test scores are of what a trial is now: one that had failed may have gone on since."""
    if tested.rung is None:
        return tested.id == trial.id and tested.score == trial.score
    return (tested.id, tested.rung) == (trial.id, trial.best_rung)


def _reference(trial: TrialRecord, tested: Winner) -> StartReference:
    return StartReference(
        id=trial.id,
        rung=trial.best_rung,
        hyperparameters=trial.hyperparameters,
        score=trial.score or 0.0,
        test=tested.test,
        interval=tested.interval,
    )


def prediction_tensors(
    logits: np.ndarray, thresholds: Sequence[float] | np.ndarray = ()
) -> dict[str, np.ndarray]:
    """What a file of test predictions holds: with the thresholds of several labels a text, if there are any."""
    tensors = {"logits": np.ascontiguousarray(logits)}
    return tensors | ({"thresholds": np.asarray(thresholds, dtype=np.float64)} if len(thresholds) else {})


def _stored_thresholds(path: object) -> tuple[float, ...]:
    with suppress(Exception):  # older files have none
        return tuple(load_file(str(path))["thresholds"].tolist())
    return ()


def _logits(path: object) -> np.ndarray | None:
    try:
        return np.asarray(load_file(str(path))["logits"])
    except Exception:  # safetensors has its own errors for missing and broken files
        return None
