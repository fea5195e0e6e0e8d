"""Sweeps of equal time: their options, and the table of their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equal_time
import pytest
from record_curves import START

from lorasweep.search_spaces.space import SearchSpace, load_space


def result(test: float, start: float, *states: str) -> dict[str, Any]:
    """What a sweep leaves behind, as far as the table reads it."""
    return {
        "winner": {"score": test + 0.01, "test": {"accuracy": test}},
        "start": {"test": {"accuracy": start}},
        "seconds": 180.0,
        "trials": [{"state": state} for state in states],
    }


RESULTS = {
    "trec": {
        "before": [result(0.80, 0.8, "completed", "stopped"), result(0.82, 0.8, "completed", "completed")],
        "now": [result(0.83, 0.8, "completed", "stopped"), result(0.83, 0.8, "stopped", "completed")],
    }
}


def test_before_has_one_start_and_the_ranges_of_the_default_space(tmp_path: Path) -> None:
    path = equal_time.old_space(tmp_path / "new")
    old, now = load_space(str(path)), load_space("lora_cpu")
    assert isinstance(old, SearchSpace)
    assert isinstance(now, SearchSpace)
    assert old.start_points() == [START]
    assert old.parameters == now.parameters


@pytest.mark.parametrize("way", equal_time.WAYS)
def test_only_before_has_options_of_the_search(way: str, tmp_path: Path) -> None:
    options = equal_time.arguments("records", Path("data"), way, 1, 2.5, tmp_path)
    assert ("--space" in options) == ("--objective" in options) == (way == "before")
    assert options[options.index("--max-minutes") + 1] == "2.5"
    assert [options[n + 1] for n, word in enumerate(options) if word == "--text"] == [
        "headline",
        "short_description",
    ]


def test_a_row_has_the_mean_and_every_seed() -> None:
    before, now = equal_time.rows(RESULTS)
    assert before == ["trec, before", "81.0 (80.0, 82.0)", "82.0", "80.0", "2, 2", "3.0"]
    assert now[1] == "83.0 (83.0, 83.0)"


def test_a_sweep_whose_start_is_not_on_record_has_a_dash() -> None:
    bare = {**result(0.8, 0.8, "completed"), "start": None}
    (row,) = equal_time.rows({"trec": {"now": [bare]}})
    assert row[3] == "-"


def test_gaps_are_paired_by_seed() -> None:
    assert equal_time.gaps(RESULTS)[0] == pytest.approx([3.0, 1.0])
