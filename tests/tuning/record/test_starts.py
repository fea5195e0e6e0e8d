"""The known-good start among a sweep's trials."""

from __future__ import annotations

from lorasweep.tuning.record.starts import start_ids, start_like
from lorasweep.tuning.record.trial_records import TrialRecord


def trial(number: int, start: int | None = None, finalist_of: str | None = None) -> TrialRecord:
    """A record."""
    return TrialRecord(id=f"t{number:03d}", number=number, start=start, finalist_of=finalist_of)


def test_the_first_of_the_starts_counts() -> None:
    trials = [trial(0, 1), trial(1, 2), trial(2)]
    assert start_ids(trials) == ["t000"]
    assert start_like(trials, trials[2]) == trials[0]
    assert start_like(trials, trials[0]) == trials[0]


def test_a_finalist_is_compared_with_the_starts_finalist() -> None:
    """The others were trained on a part of the rows."""
    trials = [trial(0, 1), trial(1), trial(2, None, "t001"), trial(3, None, "t000")]
    assert start_ids(iter(trials)) == ["t000", "t003"]
    assert start_like(trials, trials[2]) == trials[3]
    assert start_like(trials, trials[1]) == trials[0]
    assert start_like(trials[:3], trials[2]) == "t000 was not trained on all rows"


def test_a_sweep_may_have_no_start() -> None:
    """Its space has none, or its records are from before it was recorded."""
    assert start_ids([trial(0), trial(1)]) == []
    assert start_like([trial(0), trial(1)], trial(0)) is None
