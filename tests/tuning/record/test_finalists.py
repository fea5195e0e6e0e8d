"""The two kinds of trials of a search on a part of the rows: their order, their choice, their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.finalists import (
    choose_finalists,
    comparable,
    expected_finalists,
    finalist_id,
    finalists,
    searched_trials,
)
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials
from lorasweep.tuning.record.words import counts_text


def trial(number: int, score: float | None, **more: Any) -> TrialRecord:
    """A trial with settings of its own."""
    settings = {"rank": number + 1}
    return TrialRecord.model_validate(
        {"id": f"t{number:03d}", "number": number, "settings": settings, "score": score, "state": "completed"}
        | more
    )


def finalist(of: TrialRecord, score: float | None, **more: Any) -> TrialRecord:
    update = {"id": finalist_id(of), "finalist_of": of.id, "score": score, "start": of.start}
    return of.model_copy(update=update | more)


SEARCH = [trial(0, 0.6, start=1), trial(1, 0.9), trial(2, 0.8), trial(3, 0.7, start=2), trial(4, None)]
LAST = [finalist(SEARCH[0], 0.4), finalist(SEARCH[1], 0.3), finalist(SEARCH[2], None)]


def ids(trials: list[TrialRecord]) -> list[str]:
    return [trial.id for trial in trials]


def test_finalists_rank_first_whatever_the_scores() -> None:
    ranked = rank_trials([*SEARCH, *LAST], "accuracy")
    assert ids(ranked) == ["t000-full", "t001-full", "t001", "t002", "t003", "t000"]
    assert ids(comparable(ranked)) == ["t000-full", "t001-full"]
    assert ids(comparable(rank_trials(SEARCH, "accuracy"))) == ["t001", "t002", "t003", "t000"]
    assert comparable([]) == []
    assert ids(rank_trials([*SEARCH, *LAST], "loss"))[:2] == ["t001-full", "t000-full"]
    assert (ids(searched_trials([*SEARCH, *LAST])), finalists([*SEARCH, *LAST])) == (ids(SEARCH), LAST)


def test_the_best_become_finalists_and_the_known_good_start() -> None:
    """One with a score, and no settings twice."""
    assert ids(choose_finalists(SEARCH, "accuracy", 2)) == ["t001", "t002", "t000"]
    assert ids(choose_finalists(SEARCH, "accuracy", 9)) == ["t001", "t002", "t003", "t000"]
    assert ids(choose_finalists([*SEARCH, *LAST], "loss", 1)) == ["t000"]
    again = trial(5, 0.9).model_copy(update={"hyperparameters": SEARCH[1].hyperparameters})
    assert ids(choose_finalists([*SEARCH, again], "accuracy", 2)) == ["t001", "t002", "t000"]
    # Of equal settings the start stands for both.
    equal = trial(5, 0.95).model_copy(update={"hyperparameters": SEARCH[0].hyperparameters})
    assert ids(choose_finalists([*SEARCH, equal], "accuracy", 2)) == ["t000", "t001"]


def test_finalists_of_a_smaller_search_stay() -> None:
    old = finalist(SEARCH[3], 0.5)
    assert expected_finalists([*SEARCH, old], "accuracy", 1) == {"t001-full", "t000-full", "t003-full"}


def test_a_folder_keeps_both_kinds_apart(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "demo")
    folder.create(SweepConfig(name="demo"))
    for record in (*LAST, *SEARCH):
        folder.write_trial(record)
    expected = ["t000", "t000-full", "t001", "t001-full", "t002", "t002-full", "t003", "t004"]
    assert ids(folder.trials()) == expected
    assert folder.trials()[1] == LAST[0]


def test_they_are_counted_apart() -> None:
    assert counts_text(SEARCH, "ASHA") == "5 completed"
    running = [LAST[0], LAST[1].model_copy(update={"state": "running"})]
    text = counts_text([*SEARCH, *running], "ASHA")
    assert text == "5 completed; finalists on all rows: 1 completed, 1 running"
