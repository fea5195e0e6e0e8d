"""Which trials are within noise of the winner: in pairs where both have their rows on record, else by their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorasweep.training.scores.outcomes import Outcomes, row_outcomes
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import outcome_bytes
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.winner.noise import near_trials

ROWS = 400
LABELS = np.arange(ROWS) % 2


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A sweep's folder with room for outcomes."""
    folder = SweepFolder(tmp_path, "demo")
    (folder.path / "validation").mkdir(parents=True)
    return folder


def outcomes_of(wrong: int, first: int = 0) -> Outcomes:
    """So many rows wrong, from a row on."""
    predicted = LABELS.copy()
    predicted[first : first + wrong] = 1 - predicted[first : first + wrong]
    return row_outcomes(np.eye(2)[predicted], LABELS)


def trial(number: int, score: float | None, error: float | None = None, **more: Any) -> TrialRecord:
    """A record whose second evaluation is its best."""
    evaluations = [
        {"rung": 1, "standard_error": 9.0},
        {"rung": 2, "standard_error": error, "accuracy": score, "score": score},
    ]
    entries = {"id": f"t{number:03d}", "number": number, "state": "completed", "evaluations": evaluations}
    return TrialRecord.model_validate(entries | {"score": score, "best_rung": 2} | more)


def keep(folder: SweepFolder, trial_id: str, outcomes: Outcomes, rung: int = 2) -> None:
    """Put a trial's outcomes on record."""
    folder.outcomes(trial_id).write_bytes(outcome_bytes(outcomes, rung))


def test_unpaired_by_both_errors(folder: SweepFolder) -> None:
    """Two errors of 0.02 make one of 0.028 of the difference: 0.056 is the bound."""
    winner = trial(0, 0.8, 0.02)
    trials = [winner, trial(1, 0.745, 0.02), trial(2, 0.743, 0.02), trial(3, 0.79, None), trial(4, None)]
    assert near_trials(folder, trials, winner, "accuracy") == ("t001",)


def test_in_pairs_less_is_noise(folder: SweepFolder) -> None:
    """Both are wrong in the same 80 rows. Ten more on top of them are no noise (z = 3.2), four are (z = 2)."""
    winner, far, close = trial(0, 0.8, 0.02), trial(1, 0.775, 0.02), trial(2, 0.79, 0.02)
    trials = [winner, far, close]
    assert near_trials(folder, trials, winner, "accuracy") == ("t002", "t001")
    for record, wrong in ((winner, 80), (far, 90), (close, 84)):
        keep(folder, record.id, outcomes_of(wrong))
    assert near_trials(folder, trials, winner, "accuracy") == ("t002",)
    # Wrong in other rows, the same difference may be luck.
    keep(folder, "t001", outcomes_of(90, first=200))
    assert near_trials(folder, trials, winner, "accuracy") == ("t002", "t001")


def test_outcomes_of_another_evaluation_or_other_rows_make_no_pair(folder: SweepFolder) -> None:
    winner, far = trial(0, 0.8, 0.02), trial(1, 0.775, 0.02)
    keep(folder, "t000", outcomes_of(80))
    keep(folder, "t001", outcomes_of(90), rung=1)
    assert near_trials(folder, [winner, far], winner, "accuracy") == ("t001",)
    keep(folder, "t001", row_outcomes(np.eye(2)[LABELS][:300], LABELS[:300]))
    assert near_trials(folder, [winner, far], winner, "accuracy") == ("t001",)


def test_a_lower_loss_is_compared_too(folder: SweepFolder) -> None:
    winner = trial(0, 0.5, 0.03)
    trials = [winner, trial(1, 0.57, 0.03), trial(2, 0.6, 0.03)]
    assert near_trials(folder, trials, winner, "loss") == ("t001",)


def test_finalists_are_compared_with_finalists(folder: SweepFolder) -> None:
    """The scores of a search on a part are of other rows."""
    part, other = trial(0, 0.8, 0.02), trial(1, 0.8, 0.02)
    finalists = [trial(2, 0.81, 0.02, finalist_of="t000"), trial(3, 0.82, 0.02, finalist_of="t001")]
    trials = [part, other, *finalists]
    assert near_trials(folder, trials, finalists[1], "accuracy") == ("t002",)
    assert near_trials(folder, trials, part, "accuracy") == ("t001",)
